// Each node's exporter: what it sent, what is missing, how late it is, how full its conntrack is.
import type { ExporterNode, Occupant, Query } from "../api";
import { asked, useAnswer } from "../asking";
import { Share } from "../charts/Spark";
import { both, equals } from "../conditions";
import { change, parameter } from "../location";
import { useOpener } from "../parts/focus";
import { Answered, Panel } from "../parts/Panel";
import { Table } from "../parts/Table";
import { Name, Num } from "../parts/values";
import { type Group, groups } from "../rows";
import { ago } from "../times";
import { type NodesAnswer, troubled } from "./nodes/Summary";

export default function Nodes() {
  const result = useAnswer<NodesAnswer>("nodes", {}, "now");
  const chosen = parameter("node");
  return (
    <div class="beside">
      <Panel title="Nodes" class="fills">
        <Answered
          asked={result}
          empty={(value) =>
            !value.nodes.length &&
            "No exporter has connected yet. Each node's flow-exporter connects to this aggregator by its collector address and certificate; its log says what keeps it."
          }
        >
          {({ nodes }) => (
            <Table<ExporterNode>
              label="Nodes"
              rows={nodes}
              id={(node) => node.name}
              opened={chosen}
              onOpen={(node) => change({ node: node.name === chosen ? null : node.name })}
              mark={(node) => (troubled(node) ? "is-unsure" : "")}
              columns={chosen ? BESIDE : COLUMNS}
              scrolls
            />
          )}
        </Answered>
      </Panel>
      {chosen && (
        <Details
          key={chosen}
          name={chosen}
          node={result.value?.nodes.find((each) => each.name === chosen) ?? null}
          known={result.value !== null}
        />
      )}
    </div>
  );
}

const COLUMNS = [
  {
    key: "name",
    title: "Node",
    width: "18%",
    cell: (node: ExporterNode) => <Name text={node.name} />,
    order: (node: ExporterNode) => node.name,
  },
  {
    key: "state",
    title: "State",
    width: "24%",
    cell: (node: ExporterNode) =>
      troubled(node) ? (
        <span class="tag tag-unsure" data-tip={node.problems.join("\n")}>
          {node.problems[0] ?? "incomplete"}
        </span>
      ) : (
        <span class="tag">complete</span>
      ),
    order: (node: ExporterNode) => node.problems.length + Number(!node.complete),
  },
  {
    key: "heard",
    title: "Last heard",
    numeric: true,
    cell: (node: ExporterNode) =>
      node.lastHeardSeconds === null ? "–" : ago(node.lastHeardSeconds),
    order: (node: ExporterNode) => node.lastHeardSeconds ?? Number.MAX_SAFE_INTEGER,
  },
  number("Records/s", "recordsPerSecond"),
  number("Received", "received"),
  number("Lost", "lost"),
  number("Gaps", "gaps", "Jumps of the sequence numbers of its IPFIX messages"),
  {
    key: "skew",
    title: "Clock",
    tip: "How far its clock is from the aggregator's",
    numeric: true,
    cell: (node: ExporterNode) => <Num value={node.clockSkewSeconds} unit="s" />,
    order: (node: ExporterNode) => Math.abs(node.clockSkewSeconds ?? 0),
  },
  {
    key: "conntrack",
    title: "Conntrack",
    width: "12%",
    cell: (node: ExporterNode) =>
      node.conntrack ? (
        <span
          data-tip={`${node.conntrack.entries} of ${node.conntrack.max || "no known number of"} entries`}
        >
          <Share of={node.conntrack.entries / (node.conntrack.max || 1)} warns />
        </span>
      ) : (
        <span class="faint" data-tip="It is not reported">
          not reported
        </span>
      ),
    order: (node: ExporterNode) =>
      node.conntrack ? node.conntrack.entries / (node.conntrack.max || 1) : 0,
  },
  {
    key: "fill",
    title: "Entries",
    numeric: true,
    cell: (node: ExporterNode) => <Num value={node.conntrack?.entries} />,
    order: (node: ExporterNode) => node.conntrack?.entries ?? 0,
  },
];

/** Those that there is room for beside the details of a node. */
const BESIDE = COLUMNS.filter(({ key }) => key !== "gaps" && key !== "skew");

const OCCUPANT_COLUMNS = [
  {
    key: "workload",
    title: "Workload",
    width: "36%",
    cell: (each: Occupant) => (
      <Name text={[each.namespace, each.workload].filter(Boolean).join("/")} />
    ),
  },
  {
    key: "end",
    title: "End",
    width: "22%",
    tip: "source: it opened these connections. destination: it was called from elsewhere",
    cell: (each: Occupant) => each.end,
  },
  {
    key: "entries",
    title: "Entries",
    numeric: true,
    cell: (each: Occupant) => <Num value={each.entries} />,
    order: (each: Occupant) => each.entries,
  },
  {
    key: "unanswered",
    title: "Unanswered",
    tip: "Of these, such as no packet has come back for: a scan, a flood, or a peer that is gone",
    numeric: true,
    cell: (each: Occupant) => <Num value={each.unanswered} />,
    order: (each: Occupant) => each.unanswered,
  },
];

function number(
  title: string,
  key: "recordsPerSecond" | "received" | "lost" | "gaps",
  tip?: string,
) {
  return {
    key,
    title,
    numeric: true,
    ...(tip ? { tip } : {}),
    cell: (node: ExporterNode) => <Num value={node[key]} />,
    order: (node: ExporterNode) => node[key],
  };
}

interface DetailsProps {
  name: string;
  node: ExporterNode | null;
  /** Whether it is known which nodes there are. */
  known: boolean;
}

function Details({ name, node, known }: DetailsProps) {
  useOpener();
  const result = useAnswer<Query>("query", {
    ...asked(),
    filter: both(parameter("filter"), equals("src.node", name)),
    by: "src.workload",
    measure: "live,connections,octets",
    limit: 15,
  });
  return (
    <aside class="side" aria-label={`Node ${name}`}>
      <Panel
        title={<Name text={name} />}
        aside={
          <button type="button" aria-label="Close" onClick={() => change({ node: null })}>
            ×
          </button>
        }
      >
        {node?.problems.map((each) => (
          <p key={each} class="state">
            {each}
          </p>
        ))}
        {known && !node && <p class="state">No exporter of this name is known.</p>}
      </Panel>
      {node?.occupants && (
        <Panel title="What fills its conntrack" aside="entries, by who opened them">
          <Table<Occupant>
            label="What fills its conntrack"
            rows={node.occupants}
            id={(each) => `${each.namespace}/${each.kind}/${each.workload}/${each.end}`}
            columns={OCCUPANT_COLUMNS}
          />
        </Panel>
      )}
      <Panel title="Its busiest workloads" aside="connections that begin on it">
        <Answered
          asked={result}
          empty={(query) =>
            !query.rows.length &&
            (parameter("filter")
              ? "No connection of its workloads in this range matches the filter."
              : "No connection of its workloads in this range.")
          }
        >
          {(query) => (
            <Table<Group>
              label="Workloads of the node"
              rows={groups(query)}
              id={(row) => String(row.values[0])}
              columns={[
                {
                  key: "name",
                  title: "Workload",
                  width: "46%",
                  cell: (row) => <Name text={row.values[0]} none="not of a Pod" />,
                },
                {
                  key: "live",
                  title: "Seen",
                  numeric: true,
                  cell: (row) => <Num value={row.measures[0]} />,
                },
                {
                  key: "begun",
                  title: "Begun",
                  numeric: true,
                  cell: (row) => <Num value={row.measures[1]} />,
                },
                {
                  key: "bytes",
                  title: "Bytes",
                  numeric: true,
                  cell: (row) => <Num value={row.measures[2]} unit="octets" />,
                },
              ]}
            />
          )}
        </Answered>
      </Panel>
    </aside>
  );
}
