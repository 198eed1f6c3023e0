// What a flow record says, by the names of its fields (docs/elements.md).
import type { Cell, FlowRecord, Flows } from "./api";
import { LATEST } from "./times";

export function records(flows: Flows): FlowRecord[] {
  const names = flows.columns.map((each) => each.name);
  return flows.rows.map((row) =>
    Object.fromEntries(names.map((name, at) => [name, row[at] ?? null])),
  );
}

export function text(record: FlowRecord, name: string): string {
  const value = record[name];
  return value === null || value === undefined ? "" : String(value);
}

export function number(record: FlowRecord, name: string): number {
  return Number(record[name] ?? 0);
}

/** A counter, or a rate; null where octets came in a time that nobody knows. */
export function amount(record: FlowRecord, name: string): number | null {
  const found = number(record, name);
  const octets = name
    .replace(/^throughput/, "octetDeltaCount")
    .replace(/^reverseThroughput/, "reverseOctetDeltaCount");
  return octets !== name && found === 0 && number(record, octets) > 0 ? null : found;
}

/**
 * Milliseconds since the epoch, of whatever the field has: seconds, milliseconds, or text; 0 where
 * that is no time, as exporters may send any number.
 */
export function time(record: FlowRecord, ...names: string[]): number {
  for (const name of names) {
    const value = record[name];
    if (typeof value === "number" && value > LATEST) return 0;
    if (typeof value === "number" && value > 0) return value < 1e11 ? value * 1000 : value;
    if (typeof value === "string" && value) {
      const parsed = Date.parse(value.includes("T") ? value : `${value.replace(" ", "T")}Z`);
      if (parsed > 0) return parsed;
    }
  }
  return 0;
}

export const start = (record: FlowRecord) =>
  time(record, "flowStartMilliseconds", "flowStartSeconds");
export const end = (record: FlowRecord) => time(record, "flowEndMilliseconds", "flowEndSeconds");

export type Side = "source" | "destination";

/** namespace/Pod of a side, or its node or address. */
export function endpoint(record: FlowRecord, side: Side): string {
  const pod = text(record, `${side}PodName`);
  if (pod) return `${text(record, `${side}PodNamespace`)}/${pod}`;
  return text(record, `${side}IP`);
}

const PROTOCOLS: Record<string, string> = {
  1: "ICMP",
  6: "TCP",
  17: "UDP",
  58: "ICMPv6",
  132: "SCTP",
};

export function protocol(record: FlowRecord): string {
  const value = text(record, "protocolIdentifier");
  return PROTOCOLS[value] ?? value.toUpperCase();
}

const ACTIONS = ["none", "allowed", "dropped", "rejected", "would drop", "would reject"] as const;
const NAMED: Record<string, number> = { allow: 1, drop: 2, reject: 3 };

export type Verdict = (typeof ACTIONS)[number];

export function action(value: Cell | undefined): Verdict {
  const index = typeof value === "string" && value in NAMED ? NAMED[value] : Number(value ?? 0);
  return ACTIONS[index ?? 0] ?? "none";
}

const STRONGER: Verdict[] = [
  "rejected",
  "dropped",
  "would reject",
  "would drop",
  "allowed",
  "none",
];

/** The stronger of what was decided at both ends. */
export function verdict(record: FlowRecord): Verdict {
  const both = [
    action(record.ingressNetworkPolicyRuleAction),
    action(record.egressNetworkPolicyRuleAction),
  ];
  return STRONGER.find((each) => both.includes(each)) ?? "none";
}

export function denied(record: FlowRecord): boolean {
  return ["dropped", "rejected"].includes(verdict(record));
}

const REASONS = ["", "idle", "active", "end of flow", "forced", "lack of resources"];

export function reason(record: FlowRecord): string {
  const value = record.flowEndReason;
  return typeof value === "string" && Number.isNaN(Number(value))
    ? value
    : (REASONS[Number(value ?? 0)] ?? "");
}

const TYPES = ["", "intra-node", "inter-node", "to external", "from external"];

export function flowType(record: FlowRecord): string {
  const value = record.flowType;
  return typeof value === "string" && Number.isNaN(Number(value))
    ? value
    : (TYPES[Number(value ?? 0)] ?? "");
}

export interface Connection {
  source: string;
  sourcePort: number;
  destination: string;
  destinationPort: number;
  protocol: number;
  end: number;
}

/** What names a record in the URL: its tuple and its end. */
export function key(record: FlowRecord): string {
  return [
    text(record, "sourceIP"),
    text(record, "sourceTransportPort"),
    text(record, "destinationIP"),
    text(record, "destinationTransportPort"),
    text(record, "protocolIdentifier"),
    end(record),
  ].join(",");
}

export function parsed(written: string): Connection | null {
  const [source, sourcePort, destination, destinationPort, proto, at] = written.split(",");
  if (!source || !destination || !at) return null;
  return {
    source,
    sourcePort: Number(sourcePort),
    destination,
    destinationPort: Number(destinationPort),
    protocol: Number(proto),
    end: Number(at),
  };
}
