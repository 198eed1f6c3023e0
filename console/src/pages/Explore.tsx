// Any measure, by any dimensions, over time or as a whole.
import { useRef } from "preact/hooks";
import type { Cell, Query } from "../api";
import { compared, useAnswer } from "../asking";
import { HeatMap } from "../charts/HeatMap";
import { Sankey } from "../charts/Sankey";
import { Swatch, TimeChart } from "../charts/TimeChart";
import { both, equals } from "../conditions";
import { called, dimensions, isDimension, sorted, unitOf } from "../dimensions";
import { csv, download, png } from "../export";
import { change, parameter } from "../location";
import { Answered, Panel } from "../parts/Panel";
import { Table, type TableColumn } from "../parts/Table";
import { Change, Name, Num } from "../parts/values";
import { before, type Group, groups, series } from "../rows";
import { summary } from "../series";
import { fields } from "../shell/session";
import { colour } from "../shell/theme";
import { written } from "../times";

const KINDS = ["stacked", "lines", "bars", "heat", "sankey", "table"] as const;
type Kind = (typeof KINDS)[number];
const NAMES: Record<Kind, string> = {
  stacked: "Stacked",
  lines: "Lines",
  bars: "Bars",
  heat: "Heat map",
  sankey: "Sankey",
  table: "Table",
};
const INTERVALS = ["auto", "10s", "60s", "5m", "15m", "1h", "1d"];
const LIMITS = [5, 10, 15, 25, 50];

interface Shown {
  by: string[];
  measure: string;
  kind: Kind;
  limit: number;
  interval: string;
}

function shown(): Shown {
  const kind = KINDS.find((each) => each === parameter("chart")) ?? "stacked";
  const by = parameter("by", "src.namespace")
    .split(",")
    .filter((each) => each && each !== "none");
  return {
    by,
    kind,
    measure: parameter("measure", "throughput"),
    limit: Number(parameter("limit")) || 10,
    interval: parameter("interval", "auto"),
  };
}

export default function Explore() {
  const wanted = shown();
  const timed = !["sankey", "table"].includes(wanted.kind);
  const result = useAnswer<Query>("query", {
    ...compared(),
    by: wanted.by.join(","),
    measure: wanted.measure,
    interval: timed ? wanted.interval : "none",
    limit: wanted.kind === "sankey" ? Math.max(wanted.limit, 50) : wanted.limit,
  });
  const chart = useRef<HTMLDivElement>(null);
  const drawn = answered(wanted, result.value);
  return (
    <div class="explore">
      <Controls wanted={wanted} />
      <Panel
        title={title(drawn)}
        aside={<Exports wanted={drawn} query={result.value} chart={chart} />}
      >
        <Answered
          asked={result}
          empty={(query) =>
            !query.rows.length &&
            (parameter("filter")
              ? "No flow in this range matches the filter."
              : "No flow in this range.")
          }
        >
          {(query) => (
            <>
              <div ref={chart}>
                <Chart
                  wanted={drawn}
                  query={query}
                  before={query.compared?.totalSeries?.[0] ?? null}
                />
              </div>
              <Groups wanted={drawn} query={query} />
            </>
          )}
        </Answered>
      </Panel>
    </div>
  );
}

/** What an answer is of: until the next one comes that is what was asked before. */
function answered(wanted: Shown, query: Query | null): Shown {
  if (!query) return wanted;
  const names = (kind: string) =>
    query.columns.filter((each) => each.kind === kind).map((each) => each.name);
  return { ...wanted, by: names("dimension"), measure: names("measure")[0] ?? wanted.measure };
}

function title({ measure, by }: Shown): string {
  return by.length ? `${called(measure)} by ${by.join(", ")}` : called(measure);
}

/** What there is to choose from, and what a link asks for besides. */
function offered<T>(known: T[], wanted: T): T[] {
  return known.includes(wanted) ? known : [...known, wanted];
}

function Controls({ wanted }: { wanted: Shown }) {
  const all = sorted(dimensions(fields.value));
  const set = (by: string[]) => change({ by: by.join(",") || "none" });
  const move = (name: string, by: number) => {
    const next = wanted.by.filter((each) => each !== name);
    next.splice(Math.max(wanted.by.indexOf(name) + by, 0), 0, name);
    set(next);
  };
  return (
    <section class="panel controls" aria-label="What is shown">
      <div class="control">
        <span class="control-name" id="by-name">
          By
        </span>
        <ul class="chips" aria-labelledby="by-name">
          {wanted.by.map((name, at) => (
            <li key={name} class="chip">
              {at > 0 && (
                <button
                  type="button"
                  aria-label={`${name} earlier`}
                  data-tip="Earlier"
                  onClick={() => move(name, -1)}
                >
                  ‹
                </button>
              )}
              <span class="mono">{name}</span>
              <button
                type="button"
                aria-label={`Without ${name}`}
                onClick={(event) => {
                  event.currentTarget.closest("ul")?.querySelector("input")?.focus();
                  set(wanted.by.filter((each) => each !== name));
                }}
              >
                ×
              </button>
            </li>
          ))}
          <li>
            <input
              aria-label="Add a dimension"
              placeholder="add…"
              list="dimensions"
              spellcheck={false}
              onChange={(event) => {
                const name = event.currentTarget.value.trim();
                if (!isDimension(name, all) || wanted.by.includes(name)) return;
                event.currentTarget.value = "";
                set([...wanted.by, name]);
              }}
            />
            <datalist id="dimensions">
              {all
                .filter((each) => !wanted.by.includes(each))
                .map((each) => (
                  <option key={each} value={each} />
                ))}
            </datalist>
          </li>
        </ul>
      </div>
      <label class="control">
        <span class="control-name">Measure</span>
        <select
          value={wanted.measure}
          onChange={(event) => change({ measure: event.currentTarget.value })}
        >
          {(fields.value?.measures ?? []).map((each) => (
            <option key={each.name} value={each.name}>
              {called(each.name)}
            </option>
          ))}
        </select>
      </label>
      <label class="control">
        <span class="control-name">Top</span>
        <select
          value={String(wanted.limit)}
          onChange={(event) => change({ limit: event.currentTarget.value })}
        >
          {offered(LIMITS, wanted.limit).map((each) => (
            <option key={each}>{each}</option>
          ))}
        </select>
      </label>
      {!["sankey", "table"].includes(wanted.kind) && (
        <label class="control">
          <span class="control-name">Interval</span>
          <select
            value={wanted.interval}
            onChange={(event) => change({ interval: event.currentTarget.value })}
          >
            {offered(INTERVALS, wanted.interval).map((each) => (
              <option key={each}>{each}</option>
            ))}
          </select>
        </label>
      )}
      <fieldset class="group" aria-label="Chart">
        {KINDS.map((each) => (
          <button
            key={each}
            type="button"
            aria-pressed={each === wanted.kind}
            onClick={() => change({ chart: each === "stacked" ? null : each })}
          >
            {NAMES[each]}
          </button>
        ))}
      </fieldset>
    </section>
  );
}

interface ChartProps {
  wanted: Shown;
  query: Query;
  before: (number | null)[] | null;
}

function Chart({ wanted, query, before }: ChartProps) {
  const unit = unitOf(fields.value, wanted.measure);
  const label = `${title(wanted)}: the same is in the table below`;
  const end = query.answer.to;
  if (wanted.kind === "table") return null;
  if (wanted.kind === "sankey") {
    if (wanted.by.length < 2) return <p class="state">A Sankey needs two dimensions: add one.</p>;
    const rows = groups(query).map((each) => ({
      values: each.values,
      size: each.measures[0] ?? 0,
    }));
    return <Sankey label={label} dimensions={wanted.by} rows={rows} unit={unit} />;
  }
  if (!query.times) return <div class="placeholder" />; // the answer is of a table or a Sankey
  if (wanted.kind === "heat") {
    return (
      <HeatMap label={label} times={query.times} end={end} series={series(query)} unit={unit} />
    );
  }
  return (
    <TimeChart
      label={label}
      times={query.times}
      end={end}
      series={series(query)}
      kind={wanted.kind}
      unit={unit}
      height={280}
      before={before}
      onZoom={(from, to) => change({ from: written(from), to: written(to) })}
    />
  );
}

function conditionOf(wanted: Shown, values: Cell[]): string {
  return both(...wanted.by.map((name, at) => equals(name, values[at] ?? "")));
}

function Groups({ wanted, query }: { wanted: Shown; query: Query }) {
  const unit = unitOf(fields.value, wanted.measure);
  const drawn = series(query);
  const rows = groups(query);
  const summaries = drawn.map((each) => summary(each.values));
  const timed = query.series !== null;
  const columns: TableColumn<Group>[] = [
    ...wanted.by.map((name, at) => ({
      key: name,
      title: name,
      cell: (row: Group, index: number) => (
        <span class="group-name">
          {at === 0 && timed && <Swatch colour={drawn[index]?.colour ?? "flow"} />}
          <Name text={row.values[at]} />
        </span>
      ),
    })),
    {
      key: "value",
      title: called(wanted.measure),
      tip: "Over the whole range",
      numeric: true,
      cell: (row) => <Num value={row.measures[0]} unit={unit} />,
    },
  ];
  if (query.compared) {
    columns.push({
      key: "before",
      title: "Before",
      numeric: true,
      cell: (row) =>
        row.before ? <Num value={row.before[0]} unit={unit} /> : <span class="faint">–</span>,
    });
    columns.push({
      key: "change",
      title: "Change",
      numeric: true,
      cell: (row) => <Change now={row.measures[0] ?? 0} before={before(row)} />,
    });
  }
  if (timed) {
    for (const [key, name] of [
      ["min", "Min"],
      ["mean", "Mean"],
      ["p95", "p95"],
      ["max", "Max"],
      ["last", "Last"],
    ] as const) {
      columns.push({
        key,
        title: name,
        tip: "Of the intervals",
        numeric: true,
        cell: (_, index) => <Num value={summaries[index]?.[key]} unit={unit} />,
      });
    }
  }
  const all: Group[] = query.other
    ? [...rows, { values: ["other"], measures: query.other, before: undefined }]
    : rows;
  return (
    <Table<Group>
      label="Groups"
      rows={all}
      id={(row) => row.values.join("\n")}
      columns={columns}
      onOpen={(row, index) => {
        if (index < rows.length && wanted.by.length) {
          change({ filter: both(parameter("filter"), conditionOf(wanted, row.values)) });
        }
      }}
    />
  );
}

interface ExportsProps {
  wanted: Shown;
  query: Query | null;
  chart: { current: HTMLDivElement | null };
}

function Exports({ wanted, query, chart }: ExportsProps) {
  const name = `${wanted.measure}-${wanted.by.join("-") || "all"}`;
  const table = () => {
    if (!query) return;
    const columns = query.columns.map((each) => each.name);
    if (query.times && query.series) {
      const wide = [...columns, ...query.times.map(written)];
      const rows = query.rows.map((row, at) => [...row, ...(query.series?.[at]?.[0] ?? [])]);
      download(`${name}.csv`, "text/csv", csv(wide, rows));
    } else download(`${name}.csv`, "text/csv", csv(columns, query.rows));
  };
  const picture = async () => {
    const svg = chart.current?.querySelector("svg");
    if (svg) download(`${name}.png`, "image/png", await png(svg, colour("surface")));
  };
  return (
    <>
      <button type="button" disabled={!query} onClick={table}>
        CSV
      </button>
      <button
        type="button"
        disabled={!query}
        onClick={() => download(`${name}.json`, "application/json", JSON.stringify(query, null, 1))}
      >
        JSON
      </button>
      <button
        type="button"
        disabled={!query || wanted.kind === "table"}
        onClick={() => void picture()}
      >
        PNG
      </button>
    </>
  );
}
