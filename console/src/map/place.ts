// Which part of the cluster the map shows, and how to ask for it.
import type { GraphNode } from "../api";
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

/** The filter of what has a node as an end; of one side with `side`. Null where names say nothing. */
export function condition(
  node: Pick<GraphNode, "kind" | "names">,
  side: "" | "src." | "dst." = "",
): string | null {
  const name = [...node.names].reverse().find((each) => each !== "" && each !== null);
  const of = (what: string) => equals(`${side}${what}`, name ?? "");
  switch (node.kind) {
    case "namespace":
    case "workload":
    case "pod":
    case "node":
    case "zone":
    case "region":
    case "service":
      return name === undefined ? null : of(node.kind);
    default:
      if (name !== undefined && /^[0-9a-f.:]+\/\d+$/i.test(String(name)))
        return `${side}ip in ${name}`;
      if (name !== undefined && /^[0-9a-f.:]+$/i.test(String(name))) return of("ip");
      if (name !== undefined) return of("network");
      return side
        ? both(`${side}pod is empty`, `${side}node is empty`, `${side}network is empty`)
        : null;
  }
}
