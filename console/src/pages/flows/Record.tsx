// Everything that is known of one record: both nodes' counters, addresses on the way, policies, labels.
import type { Cell, FlowRecord, Flows, Parameters } from "../../api";
import { asked, useAnswer } from "../../asking";
import { both, equals } from "../../conditions";
import { change, follow, parameter, to } from "../../location";
import { useOpener } from "../../parts/focus";
import { Answered, Panel } from "../../parts/Panel";
import { Table } from "../../parts/Table";
import { Name, Num } from "../../parts/values";
import { quantity } from "../../quantities";
import * as fields from "../../records";
import { visible } from "../../texts";
import { date, fully } from "../../times";
import { Explanation } from "../policies/Explanation";
import { VerdictTag } from "./columns";

const INTERVALS = 50;

function ofConnection(of: fields.Connection): string {
  return both(
    equals("sourceIP", of.source),
    equals("destinationIP", of.destination),
    equals("sourceTransportPort", of.sourcePort),
    equals("destinationTransportPort", of.destinationPort),
    equals("protocolIdentifier", of.protocol),
  );
}

/** The same of one that began with a record: ports are used again, and pings have none. */
function ofItsConnection(of: fields.Connection, record: FlowRecord | null): string {
  const start = record ? Math.floor(fields.start(record) / 1000) * 1000 : 0;
  return start > 0 ? both(ofConnection(of), equals("flowStartSeconds", start)) : ofConnection(of);
}

/** The second that a record ends in, whatever the range of the page; that one where it has no time. */
function itsSecond({ end }: fields.Connection): Parameters {
  const from = Math.floor(end / 1000) * 1000;
  return from > 0 ? { from, to: from + 1000 } : asked();
}

/** `known`: the record if the page has it; else it is looked up by what the URL says. */
export function RecordSide({ name, known }: { name: string; known: FlowRecord | null }) {
  const connection = fields.parsed(name);
  const itself = useAnswer<Flows>(
    connection && !known ? "flows" : null,
    connection ? { ...itsSecond(connection), filter: ofConnection(connection), columns: "*" } : {},
    "once",
  );
  const found = itself.value ? fields.records(itself.value) : [];
  // The store has whole seconds, a live record more: of its second the first is it.
  const record = known ?? found.find((each) => fields.key(each) === name) ?? found[0] ?? null;
  const result = useAnswer<Flows>(
    connection && (known || !itself.loading) ? "flows" : null,
    connection
      ? {
          ...asked(),
          filter: ofItsConnection(connection, record),
          limit: INTERVALS,
          columns: "*",
        }
      : {},
    "once",
  );
  useOpener();
  if (!connection) return null;
  const intervals = result.value ? fields.records(result.value) : [];
  return (
    <aside class="side record" aria-label="Flow record">
      <Panel
        title={record ? `${fields.protocol(record)} connection` : "Flow record"}
        aside={
          <button type="button" aria-label="Close" onClick={() => change({ flow: null })}>
            ×
          </button>
        }
      >
        {record ? (
          <Facts record={record} />
        ) : (
          <Answered asked={itself}>
            {() => <p class="state">There is no such record any more.</p>}
          </Answered>
        )}
      </Panel>
      {record && (
        <>
          <Counters record={record} />
          <Way record={record} />
          <Policies record={record} />
        </>
      )}
      {(intervals.length > 1 || !record) && (
        <Intervals intervals={intervals} name={name} more={result.value?.cursor != null} />
      )}
      {record && <Raw record={record} />}
    </aside>
  );
}

function Facts({ record }: { record: FlowRecord }) {
  const [start, end] = [fields.start(record), fields.end(record)];
  const length = quantity(end - start, "ms");
  return (
    <dl class="facts">
      <dt>Verdict</dt>
      <dd>
        <VerdictTag of={fields.verdict(record)} />
      </dd>
      <dt>Source</dt>
      <dd>
        <End record={record} side="source" />
      </dd>
      <dt>Destination</dt>
      <dd>
        <End record={record} side="destination" />
      </dd>
      <dt>Began</dt>
      <dd>
        <At ms={start} />
      </dd>
      <dt>Record's end</dt>
      <dd>
        <At ms={end} />
        {start > 0 && end > 0 && (
          <span class="faint">
            {" "}
            after {length.number} {length.unit}
          </span>
        )}
      </dd>
      <dt>Written because</dt>
      <dd>{fields.reason(record)}</dd>
      {fields.text(record, "tcpState") && (
        <>
          <dt>TCP state</dt>
          <dd>{visible(fields.text(record, "tcpState"))}</dd>
        </>
      )}
      <dt>Type</dt>
      <dd>{fields.flowType(record) || "outside of the cluster"}</dd>
    </dl>
  );
}

/** A point in time; 0 is none. */
function At({ ms }: { ms: number }) {
  return ms ? <span data-tip={fully(ms)}>{date(ms)}</span> : <span class="faint">–</span>;
}

function End({ record, side }: { record: FlowRecord; side: fields.Side }) {
  const kind = visible(fields.text(record, `${side}WorkloadKind`));
  const workload = visible(fields.text(record, `${side}WorkloadName`));
  const node = visible(fields.text(record, `${side}NodeName`));
  const zone = visible(fields.text(record, `${side}Zone`));
  const labels = parsedLabels(record[`${side}PodLabels`]);
  return (
    <div class="end">
      <Name text={fields.endpoint(record, side)} />
      <span class="faint mono">
        {fields.text(record, `${side}IP`)}:{fields.text(record, `${side}TransportPort`)}
      </span>
      {workload && (
        <span class="faint">
          {kind} {workload}
        </span>
      )}
      {node && (
        <span class="faint">
          on {node}
          {zone && ` in ${zone}`}
        </span>
      )}
      {labels.length > 0 && (
        <span class="labels">
          {labels.map(([name, value]) => (
            <span key={name} class="tag">
              {visible(`${name}=${value}`)}
            </span>
          ))}
        </span>
      )}
    </div>
  );
}

function parsedLabels(value: Cell | undefined): [string, string][] {
  if (typeof value !== "string" || !value.startsWith("{")) return [];
  try {
    return Object.entries(JSON.parse(value)).map(([name, each]) => [name, String(each)]);
  } catch {
    return [];
  }
}

const COUNTED = [
  ["Bytes", "octetDeltaCount", "octets"],
  ["Bytes back", "reverseOctetDeltaCount", "octets"],
  ["Packets", "packetDeltaCount", ""],
  ["Packets back", "reversePacketDeltaCount", ""],
  ["Bytes in all", "octetTotalCount", "octets"],
  ["Bytes back in all", "reverseOctetTotalCount", "octets"],
  ["Packets in all", "packetTotalCount", ""],
  ["Packets back in all", "reversePacketTotalCount", ""],
  ["Rate", "throughput", "bit/s"],
  ["Rate back", "reverseThroughput", "bit/s"],
] as const;

function Counters({ record }: { record: FlowRecord }) {
  const value = (field: string, unit: string) =>
    field in record ? (
      <Num value={fields.amount(record, field)} unit={unit} />
    ) : (
      <span class="faint">–</span>
    );
  return (
    <Panel title="Counters" aside="as each node counted">
      <Table
        label="Counters"
        rows={COUNTED.filter(([, field]) => field in record)}
        id={([, field]) => field}
        columns={[
          { key: "what", title: "", width: "34%", cell: ([what]) => what },
          {
            key: "all",
            title: "Together",
            numeric: true,
            cell: ([, field, unit]) => value(field, unit),
          },
          {
            key: "source",
            title: "Source node",
            numeric: true,
            cell: ([, field, unit]) => value(`${field}FromSourceNode`, unit),
          },
          {
            key: "destination",
            title: "Dest. node",
            numeric: true,
            cell: ([, field, unit]) => value(`${field}FromDestinationNode`, unit),
          },
        ]}
      />
    </Panel>
  );
}

function Way({ record }: { record: FlowRecord }) {
  const at = (ip: string, port: string) => {
    const address = fields.text(record, ip);
    return address && !["0.0.0.0", "::"].includes(address)
      ? `${address.includes(":") ? `[${address}]` : address}:${fields.text(record, port)}`
      : "";
  };
  const steps: [string, string][] = [
    ["Client", at("sourceIP", "sourceTransportPort")],
    [
      "Called",
      at("destinationServiceIP", "destinationServicePort") ||
        at("destinationClusterIP", "destinationServicePort"),
    ],
    ["Source after SNAT", at("proxySnatIP", "proxySnatPort")],
    [
      "Egress",
      [fields.text(record, "egressName"), fields.text(record, "egressIP")]
        .filter(Boolean)
        .join(" as "),
    ],
    ["Server", at("destinationIP", "destinationTransportPort")],
  ];
  return (
    <Panel title="Addresses on the way">
      <ol class="way">
        {steps
          .filter(([, address]) => address)
          .map(([what, address]) => (
            <li key={what}>
              <span class="faint">{what}</span>
              <span class="mono">{address}</span>
            </li>
          ))}
      </ol>
    </Panel>
  );
}

function Policies({ record }: { record: FlowRecord }) {
  const connection = fields.parsed(fields.key(record));
  if (!connection) return null;
  const filter = ofConnection(connection);
  return (
    <Panel
      title="Policies"
      aside={
        <a href={to("policies", { explain: filter })} onClick={follow}>
          explain
        </a>
      }
    >
      <dl class="facts">
        {(["egress", "ingress"] as const).map((direction) => {
          const name = fields.text(record, `${direction}NetworkPolicyName`);
          const namespace = fields.text(record, `${direction}NetworkPolicyNamespace`);
          const rule = visible(fields.text(record, `${direction}NetworkPolicyRuleName`));
          return [
            <dt key={`${direction} name`}>
              {direction === "egress" ? "At the source" : "At the destination"}
            </dt>,
            <dd key={direction}>
              {name ? (
                <div class="end">
                  <Name text={namespace ? `${namespace}/${name}` : name} />
                  {rule && <span class="faint">rule {rule}</span>}
                  <VerdictTag of={fields.action(record[`${direction}NetworkPolicyRuleAction`])} />
                </div>
              ) : (
                <span class="faint">no policy decided</span>
              )}
            </dd>,
          ];
        })}
      </dl>
      <Explanation of={{ ...itsSecond(connection), filter }} brief />
    </Panel>
  );
}

interface IntervalsProps {
  intervals: FlowRecord[];
  name: string;
  /** There are others before them. */
  more: boolean;
}

function Intervals({ intervals, name, more }: IntervalsProps) {
  if (intervals.length === 0) return null;
  const count = `${more ? "the last " : ""}${intervals.length} in the range`;
  return (
    <Panel title="The same connection's intervals" aside={count}>
      <Table<FlowRecord>
        label="Intervals"
        rows={intervals}
        id={fields.key}
        opened={name}
        onOpen={(row) => change({ flow: fields.key(row) })}
        columns={[
          { key: "end", title: "End", width: "50%", cell: (row) => <At ms={fields.end(row)} /> },
          {
            key: "bytes",
            title: "Bytes",
            numeric: true,
            cell: (row) => <Num value={fields.number(row, "octetDeltaCount")} unit="octets" />,
          },
          {
            key: "back",
            title: "Back",
            numeric: true,
            cell: (row) => (
              <Num value={fields.number(row, "reverseOctetDeltaCount")} unit="octets" />
            ),
          },
        ]}
      />
    </Panel>
  );
}

function Raw({ record }: { record: FlowRecord }) {
  return (
    <details class="panel raw" open={parameter("raw") === "1"}>
      <summary>All fields</summary>
      <dl class="facts mono">
        {Object.entries(record).map(([name, value]) => [
          <dt key={`${name} name`} data-tip={name}>
            {name}
          </dt>,
          <dd key={name}>
            {value === "" || value === null ? <span class="faint">–</span> : visible(String(value))}
          </dd>,
        ])}
      </dl>
    </details>
  );
}
