export default function Policies() {
  return <p>todo</p>;
}
