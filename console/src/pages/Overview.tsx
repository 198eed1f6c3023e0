// What goes on, in one look: how much, who, what is denied, what is new, and whether all of it is there.
import type { ComponentChildren } from "preact";
import type { Missing, Query } from "../api";
import { answers, asked, compared, useAnswer } from "../asking";
import { Share, Spark } from "../charts/Spark";
import { Legend, TimeChart } from "../charts/TimeChart";
import { both, equals } from "../conditions";
import { DENIED } from "../dimensions";
import { change, follow, go, parameter, to } from "../location";
import { Answered, Panel } from "../parts/Panel";
import { Table } from "../parts/Table";
import { Change, Name, Num } from "../parts/values";
import { before, type Group, groups, series } from "../rows";
import { missing } from "../shell/Completeness";
import { me } from "../shell/session";
import { written } from "../times";
import { NodesSummary } from "./nodes/Summary";

const TOTALS = ["throughput", "connections", "denied", "unanswered"] as const;
const NEW_ROWS = 500;
const AHEAD_MS = 60_000; // of the aggregator's clock, this one may be behind

export default function Overview() {
  return (
    <div class="overview">
      <Totals />
      <Throughput />
      {me.value?.may.nodes !== false && <NodesSummary />}
      <TopWorkloads />
      <Denied />
      <New />
    </div>
  );
}

function Totals() {
  const asked = useAnswer<Query>("query", {
    ...compared(),
    measure: TOTALS.join(","),
    interval: "auto",
  });
  return (
    <section class="tiles" aria-label="Totals">
      <Answered asked={asked}>
        {(query) => (
          <div class="tile-row">
            <Tile query={query} at={0} title="Throughput" unit="bit/s" address={to("explore")} />
            <Tile query={query} at={1} title="Connections begun" address={to("flows")} />
            <Tile
              query={query}
              at={2}
              title="Denied by a policy"
              denied
              address={to("flows", { filter: both(parameter("filter"), DENIED) })}
            />
            <Tile
              query={query}
              at={3}
              title="Unanswered"
              address={to("explore", {
                by: "src.workload,dst.workload,dst.port",
                measure: "unanswered",
              })}
            />
            <Books gone={missing(answers.value)} />
          </div>
        )}
      </Answered>
    </section>
  );
}

interface TileProps {
  query: Query;
  at: number;
  title: string;
  unit?: string;
  denied?: boolean;
  address: string;
}

function Tile({ query, at, title, unit = "", denied = false, address }: TileProps) {
  const value = query.total[at] ?? 0;
  const before = query.compared?.total[at];
  return (
    <a class="tile" href={address} onClick={follow}>
      <span class="tile-title">{title}</span>
      <span class={denied && value ? "tile-number denied" : "tile-number"}>
        <Num value={value} unit={unit} quiet={false} />
        {before !== undefined && <Change now={value} before={before} />}
      </span>
      <Spark values={query.totalSeries?.[at] ?? []} denied={denied && value > 0} />
    </a>
  );
}

function Books({ gone }: { gone: Missing[] }) {
  const complete = answers.value.every((each) => each.complete);
  const over = answers.value.every((each) => each.to <= Date.now() + AHEAD_MS);
  return (
    <div class={complete ? "tile books-tile" : "tile books-tile incomplete"}>
      <span class="tile-title">Books</span>
      <span class="tile-number">{complete ? "Complete" : "Incomplete"}</span>
      <span class="tile-text">
        {complete
          ? over
            ? "Every record that an exporter made in this range is counted here."
            : "This range is not over: every record that an exporter made so far is counted here."
          : gone
              .slice(0, 2)
              .map((each) => each.text)
              .join(" ")}
        {gone.length > 2 && ` And ${gone.length - 2} more.`}
      </span>
    </div>
  );
}

function zoom(from: number, until: number): void {
  change({ from: written(from), to: written(until) });
}

function Throughput() {
  const result = useAnswer<Query>("query", {
    ...asked(),
    by: "src.namespace",
    measure: "throughput",
    interval: "auto",
    limit: 8,
  });
  return (
    <Panel title="Throughput by namespace" class="wide" aside="of the source; drag to zoom">
      <Answered asked={result} empty={nothing} height={227}>
        {(query) => {
          const drawn = series(query);
          return (
            <>
              <TimeChart
                label="Throughput by namespace over time"
                times={query.times ?? []}
                end={query.answer.to}
                series={drawn}
                unit="bit/s"
                height={196}
                onZoom={zoom}
              />
              <Legend series={drawn} />
            </>
          );
        }}
      </Answered>
    </Panel>
  );
}

function nothing(query: Query): ComponentChildren {
  if (query.rows.length) return null;
  return parameter("filter")
    ? "No flow in this range matches the filter."
    : "No flow in this range. Exporters report connections as they begin, go on and end: if there is traffic, look at the nodes.";
}

function narrow(condition: string): void {
  change({ filter: both(parameter("filter"), condition) });
}

function TopWorkloads() {
  const result = useAnswer<Query>("query", {
    ...compared(),
    by: "src.workload",
    measure: "octets,connections",
    limit: 10,
  });
  const comparing = parameter("compare") !== "";
  return (
    <Panel
      title="Top workloads"
      aside={
        <a href={to("explore", { by: "src.workload" })} onClick={follow}>
          all
        </a>
      }
    >
      <Answered asked={result} empty={nothing}>
        {(query) => {
          const most = Number(query.total[0] ?? 0) || 1;
          return (
            <Table<Group>
              label="Top workloads"
              rows={groups(query)}
              id={(row) => String(row.values[0])}
              onOpen={(row) => narrow(equals("src.workload", row.values[0] ?? ""))}
              columns={[
                {
                  key: "name",
                  title: "Source",
                  width: "46%",
                  cell: (row) => <Name text={row.values[0]} none="not of a Pod" />,
                },
                {
                  key: "share",
                  title: "Share",
                  width: "18%",
                  cell: (row) => <Share of={(row.measures[0] ?? 0) / most} />,
                },
                {
                  key: "octets",
                  title: "Bytes",
                  numeric: true,
                  cell: (row) => <Num value={row.measures[0]} unit="octets" />,
                },
                ...(comparing
                  ? [
                      {
                        key: "change",
                        title: "Change",
                        numeric: true,
                        cell: (row: Group) => (
                          <Change now={row.measures[0] ?? 0} before={before(row)} />
                        ),
                      },
                    ]
                  : []),
                {
                  key: "connections",
                  title: "Conn.",
                  tip: "Connections begun",
                  numeric: true,
                  cell: (row) => <Num value={row.measures[1]} />,
                },
              ]}
            />
          );
        }}
      </Answered>
    </Panel>
  );
}

function Denied() {
  const filter = both(parameter("filter"), DENIED);
  const result = useAnswer<Query>("query", {
    ...asked(),
    filter,
    by: "src.workload,dst.workload,dst.port",
    measure: "denied",
    limit: 10,
  });
  return (
    <Panel
      title="Denied"
      aside={
        <a href={to("policies")} onClick={follow}>
          policies
        </a>
      }
    >
      <Answered
        asked={result}
        empty={(query) => !query.rows.length && "No connection was denied in this range."}
      >
        {(query) => (
          <Table<Group>
            label="Denied connections"
            rows={groups(query)}
            id={(row) => JSON.stringify(row.values)}
            onOpen={(row) => go(to("flows", { filter: both(filter, edge(row)) }))}
            columns={edgeColumns("denied", "")}
          />
        )}
      </Answered>
    </Panel>
  );
}

function edge(row: Group): string {
  const [source, target, port] = row.values;
  return both(
    equals("src.workload", source ?? ""),
    equals("dst.workload", target ?? ""),
    equals("dst.port", port ?? ""),
  );
}

function edgeColumns(measure: string, unit: string) {
  return [
    {
      key: "from",
      title: "Source",
      width: "37%",
      cell: (row: Group) => <Name text={row.values[0]} none="not of a Pod" />,
    },
    {
      key: "to",
      title: "Destination",
      width: "37%",
      cell: (row: Group) => <Name text={row.values[1]} none="not of a Pod" />,
    },
    { key: "port", title: "Port", numeric: true, cell: (row: Group) => row.values[2] },
    {
      key: measure,
      title: measure === "denied" ? "Denied" : "Bytes",
      numeric: true,
      cell: (row: Group) => <Num value={row.measures[0]} unit={unit} />,
    },
  ];
}

function New() {
  const compare = parameter("compare") || "-1d";
  const result = useAnswer<Query>("query", {
    ...asked(),
    compare,
    by: "src.workload,dst.workload,dst.port",
    measure: "bothOctets",
    limit: NEW_ROWS,
  });
  const since = compare === "-1d" ? "since yesterday" : "since what is compared with";
  return (
    <Panel title={`New ${since}`} aside="not there before">
      <Answered
        asked={result}
        empty={(query) =>
          !query.compared?.rows.some((each) => each === null) &&
          (query.other
            ? `Of the ${query.rows.length} that talk most, nothing talks that did not before.`
            : "Nothing talks that did not before.")
        }
      >
        {(query) => (
          <Table<Group>
            label={`New ${since}`}
            rows={groups(query)
              .filter((each) => each.before === null)
              .slice(0, 10)}
            id={(row) => JSON.stringify(row.values)}
            onOpen={(row) => go(to("flows", { filter: both(parameter("filter"), edge(row)) }))}
            columns={edgeColumns("bothOctets", "octets")}
          />
        )}
      </Answered>
    </Panel>
  );
}
