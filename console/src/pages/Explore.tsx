export default function Explore() {
  return <p>todo</p>;
}
