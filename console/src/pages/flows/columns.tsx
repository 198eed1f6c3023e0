// The columns that people choose from; any field of a record is one as well, by its name.
import type { FlowRecord } from "../../api";
import type { TableColumn } from "../../parts/Table";
import { Name, Num } from "../../parts/values";
import * as record from "../../records";
import { clock, day, fully } from "../../times";

export interface Lost {
  lost: number;
}
export type Line = FlowRecord;

type FlowColumn = Omit<TableColumn<Line>, "order">;

const TAGS: Partial<Record<record.Verdict, string>> = {
  dropped: "tag tag-denied",
  rejected: "tag tag-denied",
  "would drop": "tag tag-unsure",
  "would reject": "tag tag-unsure",
};

export function VerdictTag({ of }: { of: record.Verdict }) {
  if (of === "none") return <span class="faint">none</span>;
  return <span class={TAGS[of] ?? "tag"}>{of}</span>;
}

function When({ at }: { at: number }) {
  if (!at) return <span class="faint">–</span>;
  const today = day(at) === day(Date.now());
  return (
    <span class="mono" data-tip={fully(at)}>
      {!today && `${day(at)} `}
      {clock(at)}
      {at % 1000 !== 0 && (
        <span class="faint">.{String(Math.round(at) % 1000).padStart(3, "0")}</span>
      )}
    </span>
  );
}

function counter(key: string, title: string, field: string, unit = ""): FlowColumn {
  return {
    key,
    title,
    tip: field,
    numeric: true,
    width: "76px",
    cell: (line) => <Num value={record.amount(line, field)} unit={unit} />,
  };
}

function plain(
  key: string,
  title: string,
  width: string,
  value: (line: Line) => string,
): FlowColumn {
  return { key, title, width, cell: (line) => <Name text={value(line)} none="–" /> };
}

export const COLUMNS: FlowColumn[] = [
  {
    key: "time",
    title: "Time",
    width: "108px",
    tip: "End of the interval",
    cell: (line) => <When at={record.end(line)} />,
  },
  {
    key: "start",
    title: "Start",
    width: "108px",
    tip: "When the connection began",
    cell: (line) => <When at={record.start(line)} />,
  },
  plain("source", "Source", "20%", (line) => record.endpoint(line, "source")),
  plain("destination", "Destination", "20%", (line) => record.endpoint(line, "destination")),
  {
    key: "port",
    title: "Port",
    width: "84px",
    tip: "Of the destination",
    cell: (line) => (
      <span>
        <span class="faint">{record.protocol(line)} </span>
        {record.text(line, "destinationTransportPort")}
      </span>
    ),
  },
  plain("service", "Service", "14%", (line) => record.text(line, "destinationServicePortName")),
  {
    key: "verdict",
    title: "Verdict",
    width: "84px",
    tip: "What policies decided",
    cell: (line) => <VerdictTag of={record.verdict(line)} />,
  },
  plain("reason", "Record", "84px", record.reason),
  counter("octets", "Bytes", "octetDeltaCount", "octets"),
  counter("reverseOctets", "Back", "reverseOctetDeltaCount", "octets"),
  counter("packets", "Packets", "packetDeltaCount"),
  counter("throughput", "Rate", "throughput", "bit/s"),
  plain("state", "State", "100px", (line) => record.text(line, "tcpState")),
  plain("type", "Type", "92px", record.flowType),
  plain("sourceNode", "Source node", "12%", (line) => record.text(line, "sourceNodeName")),
  plain("destinationNode", "Dest. node", "12%", (line) => record.text(line, "destinationNodeName")),
];

export const DEFAULT = "time,source,destination,port,service,verdict,reason,octets,reverseOctets";

/** What has room beside a record that is open. */
export const BESIDE = "time,source,destination,port,verdict,octets";

/** The columns of a list of keys; what is none of ours is a field of the record. */
export function chosen(keys: string): FlowColumn[] {
  return keys
    .split(",")
    .filter(Boolean)
    .map(
      (key) =>
        COLUMNS.find((each) => each.key === key) ??
        plain(key, key, "auto", (line) => record.text(line, key)),
    );
}
