// Where the map's nodes are, worked out off the main thread. Nodes of one group (workloads of a
// namespace) lie together in a disc; discs, and what has no group, find their places by forces. What
// has a place keeps it: only what is new looks for one.
import {
  forceCollide,
  forceLink,
  forceManyBody,
  forceSimulation,
  forceX,
  forceY,
  type SimulationLinkDatum,
  type SimulationNodeDatum,
} from "d3-force";
import type { LayoutAnswer, LayoutQuestion, PlacedNode, Tie } from "./layout";

/** A disc: a group with its nodes in it, or one node. */
interface Disc extends SimulationNodeDatum {
  id: string;
  radius: number;
  members: PlacedNode[];
  alone: boolean;
}

const STEPS = 300;
const GOLDEN = Math.PI * (3 - Math.sqrt(5));
const APART = 38; // of two nodes in a disc, about half of it

self.onmessage = (event: MessageEvent<LayoutQuestion>) => {
  const { turn, nodes, ties, aspect } = event.data;
  const discs = discsOf(nodes);
  const fresh = discs.filter((each) => each.fx === undefined || each.fx === null);
  if (fresh.length > 0) settle(discs, ties, nodes, aspect, fresh.length);
  const found = new Map<string, [number, number]>();
  for (const disc of discs) place(disc, found);
  const places = new Float32Array(nodes.length * 2);
  nodes.forEach((node, at) => {
    const [x, y] = found.get(node.id) ?? [0, 0];
    places[at * 2] = x;
    places[at * 2 + 1] = y;
  });
  const answer: LayoutAnswer = { turn, places };
  self.postMessage(answer, { transfer: [places.buffer] });
};

function discsOf(nodes: PlacedNode[]): Disc[] {
  const members = new Map<string, PlacedNode[]>();
  for (const node of nodes) {
    const name = node.group ? `group ${node.group}` : `node ${node.id}`;
    const list = members.get(name) ?? [];
    list.push(node);
    members.set(name, list);
  }
  return [...members].map(([id, list]) => {
    const alone = id.startsWith("node ");
    const radius = alone ? (list[0]?.radius ?? 5) + 14 : APART * Math.sqrt(list.length) + 26;
    const known = list.filter((each) => each.x !== undefined);
    const disc: Disc = { id, radius, members: list, alone };
    if (known.length) {
      // It stays where it is.
      disc.fx = known.reduce((sum, each) => sum + (each.x ?? 0), 0) / known.length;
      disc.fy = known.reduce((sum, each) => sum + (each.y ?? 0), 0) / known.length;
    }
    return disc;
  });
}

function settle(
  discs: Disc[],
  ties: Tie[],
  nodes: PlacedNode[],
  aspect: number,
  fresh: number,
): void {
  const home = new Map<string, Disc>();
  for (const disc of discs) for (const member of disc.members) home.set(member.id, disc);
  const between = new Map<string, SimulationLinkDatum<Disc> & { weight: number }>();
  for (const tie of ties) {
    const [source, target] = [home.get(tie.source), home.get(tie.target)];
    if (!source || !target || source === target) continue;
    const key = [source.id, target.id].sort().join(" ");
    const link = between.get(key) ?? { source, target, weight: 0 };
    link.weight = Math.min(link.weight + tie.weight, 1);
    between.set(key, link);
  }
  const area = discs.reduce((sum, each) => sum + (each.radius + 40) ** 2, 0);
  const spread = Math.sqrt(area);
  const wide = Math.min(Math.max(aspect, 0.5), 2.5);
  for (const disc of discs) {
    const angle = hashed(disc.id) * Math.PI * 2;
    const far = spread * (0.3 + 0.7 * hashed(`${disc.id} far`));
    disc.x = disc.fx ?? Math.cos(angle) * far * wide;
    disc.y = disc.fy ?? Math.sin(angle) * far;
  }
  const few = nodes.length < 60;
  const pull = 0.06;
  const simulation = forceSimulation(discs)
    .force(
      "link",
      forceLink<Disc, SimulationLinkDatum<Disc> & { weight: number }>([...between.values()])
        .id((each) => each.id)
        .distance((link) => (few ? 110 : 60) + radius(link.source) + radius(link.target))
        .strength((link) => 0.03 + 0.12 * link.weight),
    )
    .force(
      "charge",
      forceManyBody<Disc>()
        .strength((each) => -12 * (each.radius + (few ? 30 : 8)))
        .distanceMax(1200),
    )
    .force(
      "collide",
      forceCollide<Disc>((each) => each.radius + (each.alone ? 12 : 22))
        .strength(1)
        .iterations(3),
    )
    .force("x", forceX<Disc>(0).strength(pull / wide))
    .force("y", forceY<Disc>(0).strength(pull * wide))
    .stop();
  const steps = fresh < discs.length / 2 ? STEPS / 4 : STEPS;
  for (let step = 0; step < steps; step += 1) simulation.tick();
}

function radius(end: Disc | string | number): number {
  return typeof end === "object" ? end.radius : 0;
}

/** The nodes of a disc, as seeds in a sunflower: the largest in the middle, none on another. */
function place(disc: Disc, found: Map<string, [number, number]>): void {
  const [x, y] = [disc.fx ?? disc.x ?? 0, disc.fy ?? disc.y ?? 0];
  const settled = disc.members.filter((each) => each.x !== undefined).length;
  let at = settled;
  for (const member of disc.members) {
    if (member.x !== undefined && member.y !== undefined) {
      found.set(member.id, [member.x, member.y]);
      continue;
    }
    const far = disc.members.length === 1 ? 0 : APART * Math.sqrt(at + 0.5);
    const angle = at * GOLDEN;
    found.set(member.id, [x + Math.cos(angle) * far, y + Math.sin(angle) * far]);
    at += 1;
  }
}

/** From 0 to 1, the same for the same name: a map that is drawn again is the same map (FNV-1a). */
function hashed(text: string): number {
  let hash = 2_166_136_261;
  for (let at = 0; at < text.length; at += 1) {
    hash = Math.imul(hash ^ text.charCodeAt(at), 16_777_619);
  }
  return (hash >>> 0) / 4_294_967_296;
}
