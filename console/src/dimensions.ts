// What can be grouped by and measured, as the API lists it.
import type { Fields } from "./api";

/** Those of a connection as a whole, beside those of its ends. */
const WHOLE_TOO = new Set(["verdict"]);
/** Stands for labels of any key. */
const ANY_LABEL = "label.KEY";

/** Names of the filter language that one may group by. */
export function dimensions(fields: Fields | null): string[] {
  const found = new Set<string>();
  for (const { name, dimension, sides } of fields?.names ?? []) {
    if (!dimension || name === ANY_LABEL) continue;
    if (sides) {
      found.add(`src.${name}`);
      found.add(`dst.${name}`);
    }
    if (!sides || WHOLE_TOO.has(name)) found.add(name);
  }
  return [...found];
}

/** Whether a text names one: of a list, or a label. */
export function isDimension(text: string, known: string[]): boolean {
  return known.includes(text) || /^(src|dst)\.label\.[A-Za-z0-9][\w./-]*$/.test(text);
}

/** The dimensions that people ask for most, first; columns by their own names, last. */
export function sorted(names: string[]): string[] {
  const rank = (name: string) => {
    const at = FIRST.indexOf(name);
    return at >= 0 ? at : FIRST.length + (/[A-Z]/.test(name) ? 1 : 0);
  };
  return [...names].sort((a, b) => rank(a) - rank(b));
}

const FIRST = [
  "src.namespace",
  "dst.namespace",
  "src.workload",
  "dst.workload",
  "src.pod",
  "dst.pod",
  "service",
  "dst.port",
  "dst.ip",
  "src.ip",
  "dst.network",
  "src.network",
  "verdict",
  "type",
  "proto",
  "src.node",
  "dst.node",
  "src.zone",
  "dst.zone",
  "crosszone",
  "dst.policy",
  "src.policy",
  "dst.rule",
  "src.rule",
];

export function unitOf(fields: Fields | null, measure: string): string {
  return fields?.measures.find((each) => each.name === measure)?.unit ?? "";
}

const SAID: Record<string, string> = {
  octets: "Bytes",
  reverseOctets: "Bytes back",
  bothOctets: "Bytes both ways",
  packets: "Packets",
  reversePackets: "Packets back",
  connections: "Connections",
  ended: "Ended",
  live: "Connections seen",
  denied: "Denied",
  unanswered: "Unanswered",
  throughput: "Throughput",
  reverseThroughput: "Throughput back",
  peakThroughput: "Peak throughput",
  sources: "Sources",
  destinations: "Destinations",
  records: "Records",
};

/** What people call a measure. */
export function called(measure: string): string {
  return SAID[measure] ?? measure;
}

/** Denied by a policy, whichever way. */
export const DENIED = "verdict in (dropped, rejected)";
export const UNANSWERED = "unanswered";
