// The map's picture: what an answer's graph is on it, and how it is drawn.
import type { Cell, Graph, GraphEdge, GraphNode, NodeKind } from "../api";
import { visible } from "../texts";

export interface SceneNode {
  id: string;
  label: string;
  kind: NodeKind;
  names: Cell[];
  group: string;
  bothOctets: number;
  connections: number;
  denied: number;
  radius: number;
  x: number;
  y: number;
  /** How much of what it has is before: for comparisons. */
  change: Change;
}

export type Change = "same" | "new" | "gone" | "more" | "less";

export interface SceneEdge extends GraphEdge {
  change: Change;
  before: number | null;
}

export interface Scene {
  nodes: SceneNode[];
  edges: SceneEdge[];
  left: number;
}

const MOST = 300; // elements drawn
const EDGES = 1200;

/** A name of a node as people call it: its last part. */
export function label(node: { names: Cell[]; kind: NodeKind; id: string }): string {
  const last = [...node.names].reverse().find((each) => each !== "" && each !== null);
  if (last === undefined) return node.kind === "external" ? "outside" : "not of a Pod";
  const text = String(last);
  if (node.kind === "external") return text; // a network's name, which may have any slashes
  return text.includes("/") ? text.slice(text.indexOf("/") + 1) : text;
}

function changed(now: number, before: number | null): Change {
  if (before === null) return "new";
  if (now > before * 1.5) return "more";
  if (now < before / 1.5) return "less";
  return "same";
}

/** Put nodes together under another id, adding up what they have. */
export function collapsed(
  graph: Pick<Graph, "nodes" | "edges">,
  into: (node: GraphNode) => GraphNode,
) {
  const nodes = new Map<string, GraphNode>();
  const renamed = new Map<string, string>();
  for (const node of graph.nodes) {
    const whole = into(node);
    renamed.set(node.id, whole.id);
    const kept = nodes.get(whole.id);
    if (kept) {
      kept.bothOctets += node.bothOctets;
      kept.connections += node.connections;
      kept.denied += node.denied;
    } else {
      nodes.set(whole.id, {
        ...whole,
        bothOctets: node.bothOctets,
        connections: node.connections,
        denied: node.denied,
      });
    }
  }
  const edges = new Map<string, GraphEdge>();
  for (const edge of graph.edges) {
    const source = renamed.get(edge.source) ?? edge.source;
    const target = renamed.get(edge.target) ?? edge.target;
    const key = `${source} ${target}`;
    const kept = edges.get(key);
    if (!kept) edges.set(key, { ...edge, source, target });
    else {
      for (const name of [
        "bothOctets",
        "packets",
        "connections",
        "denied",
        "unanswered",
        "throughput",
      ] as const) {
        kept[name] += edge[name];
      }
    }
  }
  return { nodes: [...nodes.values()], edges: [...edges.values()] };
}

/** What is drawn of a graph: the largest, at most a few hundred. */
export function scene(
  now: Pick<Graph, "nodes" | "edges">,
  before: Pick<Graph, "nodes" | "edges"> | null,
  groupOf: (node: GraphNode) => string,
): Scene {
  const earlier = new Map(
    before?.edges.map((edge) => [`${edge.source} ${edge.target}`, edge.bothOctets]),
  );
  const edges: SceneEdge[] = now.edges.map((edge) => {
    const key = `${edge.source} ${edge.target}`;
    const was = before ? (earlier.get(key) ?? null) : null;
    earlier.delete(key);
    return { ...edge, before: was, change: before ? changed(edge.bothOctets, was) : "same" };
  });
  for (const edge of before?.edges ?? []) {
    if (!earlier.has(`${edge.source} ${edge.target}`)) continue;
    edges.push({
      ...edge,
      bothOctets: 0,
      packets: 0,
      connections: 0,
      denied: 0,
      unanswered: 0,
      throughput: 0,
      before: edge.bothOctets,
      change: "gone",
    });
  }
  const was = new Set(before?.nodes.map((each) => each.id));
  const is = new Set(now.nodes.map((each) => each.id));
  const gone = (before?.nodes ?? []).filter((each) => !is.has(each.id));
  const all = [
    ...now.nodes.map((node) => ({
      node,
      change: before && !was.has(node.id) ? ("new" as const) : ("same" as const),
    })),
    ...gone.map((node) => ({
      node: { ...node, bothOctets: 0, connections: 0, denied: 0 },
      change: "gone" as const,
    })),
  ].sort((a, b) => b.node.bothOctets - a.node.bothOctets || b.node.denied - a.node.denied);
  const kept = all.slice(0, MOST);
  const most = Math.max(...kept.map(({ node }) => node.bothOctets), 1);
  const nodes = kept.map(({ node, change }) => ({
    id: node.id,
    names: node.names,
    kind: node.kind,
    label: visible(label(node)),
    group: groupOf(node),
    bothOctets: node.bothOctets,
    connections: node.connections,
    denied: node.denied,
    radius: 5 + 15 * Math.sqrt(node.bothOctets / most),
    x: Number.NaN,
    y: Number.NaN,
    change,
  }));
  const drawn = new Set(nodes.map((each) => each.id));
  const inside = edges
    .filter((each) => drawn.has(each.source) && drawn.has(each.target))
    .sort((a, b) => b.bothOctets + b.denied * 1e6 - a.bothOctets - a.denied * 1e6)
    .slice(0, EDGES);
  return { nodes, edges: inside, left: all.length - kept.length };
}
