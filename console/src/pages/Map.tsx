export default function Map() {
  return <p>todo</p>;
}
