// Which part of the cluster the map shows, and how to ask for it.
import type { Cell, GraphNode } from "../api";
import { both, equals } from "../conditions";

export const LEVELS = ["namespace", "workload", "pod", "node", "zone"] as const;
export type Level = (typeof LEVELS)[number];

export interface Where {
  /** "", a namespace, or namespace/workload. */
  focus: string;
  level: Level;
}

export function namespaceOf(name: string): string {
  const at = name.indexOf("/");
  return at < 0 ? name : name.slice(0, at);
}

export function dimensionsOf({ focus, level }: Where): string[] {
  if (!focus) return [level];
  return focus.includes("/") ? ["workload", "pod"] : ["workload"];
}

export function focusFilter({ focus }: Where): string {
  if (!focus) return "";
  return equals(focus.includes("/") ? "workload" : "namespace", focus);
}

function first(node: GraphNode): string {
  return String(node.names[0] ?? "");
}

const OUTSIDE = new Set(["external", "unknown", "node", "service", "zone", "region"]);

/** In a focus, what is elsewhere is shown by what it is of: namespaces, or workloads. */
export function seenFrom({ focus }: Where): (node: GraphNode) => GraphNode {
  return (node) => {
    if (!focus || OUTSIDE.has(node.kind)) return node;
    const workload = first(node);
    if (!focus.includes("/")) {
      const namespace = namespaceOf(workload);
      if (namespace === focus || !namespace) return node;
      return { ...node, id: `namespace:${namespace}`, kind: "namespace", names: [namespace] };
    }
    if (workload === focus) return node;
    return { ...node, id: `workload:${workload}`, kind: "workload", names: [workload] };
  };
}

/** Where going into a node leads; null: it is as deep as it goes. */
export function into(node: Pick<GraphNode, "kind" | "names">): string | null {
  if (node.kind === "namespace" || node.kind === "workload")
    return String(node.names[0] ?? "") || null;
  return null;
}

type Named = Pick<GraphNode, "kind" | "names">;

/** The filter of what has a node of the map as an end; of one side with `side`. */
export function condition(node: Named, place: Where, side: "" | Side = ""): string {
  if (side) return at(node, place, side);
  const name = nameOf(node);
  if (name !== undefined && isWhole(node, place)) return equals(node.kind, name);
  return SIDES.map((each) => `(${at(node, place, each)})`).join(" or ");
}

/** As `condition`, of what the map shows of it where one has gone in. */
export function conditionWithin(node: Named, place: Where): string {
  return both(focusFilter(place), condition(node, place));
}

const SIDES = ["src.", "dst."] as const;
type Side = (typeof SIDES)[number];
/** What the type of a flow is called whose end on a side is outside of the cluster. */
const OUTSIDE_BY: Record<Side, string> = { "src.": "from-external", "dst.": "to-external" };

function nameOf(node: Named): Cell | undefined {
  return [...node.names].reverse().find((each) => each !== "" && each !== null);
}

/** Whether a name is of all that is drawn as a node: that of a machine is of its Pods as well. */
function isWhole({ kind }: Named, place: Where): boolean {
  if (kind === "node") return dimensionsOf(place).at(-1) === "node";
  return kind !== "external" && kind !== "unknown";
}

function at(node: Named, place: Where, side: Side): string {
  const name = nameOf(node);
  const is = (what: string, value: Cell | undefined) => equals(`${side}${what}`, value ?? "");
  const noPod = is("pod", "");
  const type = OUTSIDE_BY[side];
  switch (node.kind) {
    case "external":
      return both(noPod, is("network", name), equals("type", type));
    case "unknown":
      return both(noPod, is("node", ""), is("network", name), equals("type", type, true));
    case "node":
      return isWhole(node, place) ? is("node", name) : both(noPod, is("node", name));
    default:
      if (name !== undefined) return is(node.kind, name);
      // Pods of which what is drawn is not known, as zones are not.
      return both(equals(`${side}pod`, "", true), is(dimensionsOf(place).at(-1) ?? "", ""));
  }
}
