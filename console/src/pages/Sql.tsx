export default function Sql() {
  return <p>todo</p>;
}
