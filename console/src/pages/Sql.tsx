// Read-only SQL over what is stored, for whom the pages are not enough.
import { useEffect, useLayoutEffect, useRef, useState } from "preact/hooks";
import { ApiError, type Cell, exactly, post, type SqlResult } from "../api";
import { csv, download } from "../export";
import { change, parameter } from "../location";
import { Failure, Panel } from "../parts/Panel";
import { Table } from "../parts/Table";
import { said } from "../quantities";
import { fields } from "../shell/session";
import { several, visible } from "../texts";
import { type Editor, edit } from "./sql/editor";

const EXAMPLES: [string, string][] = [
  [
    "Bytes by namespace, last hour",
    "SELECT sourcePodNamespace, sum(octetDeltaCount) AS octets\nFROM flows\nWHERE timeInserted > now() - INTERVAL 1 HOUR\nGROUP BY sourcePodNamespace\nORDER BY octets DESC",
  ],
  [
    "What left the cluster",
    "SELECT sourcePodNamespace, sourcePodName, destinationIP, sum(octetDeltaCount) AS octets\nFROM flows\nWHERE flowType = 3 AND timeInserted > now() - INTERVAL 1 DAY\nGROUP BY 1, 2, 3\nORDER BY octets DESC\nLIMIT 50",
  ],
  [
    "Denied, by rule",
    "SELECT ingressNetworkPolicyNamespace, ingressNetworkPolicyName, ingressNetworkPolicyRuleName, count() AS records\nFROM flows\nWHERE ingressNetworkPolicyRuleAction IN (2, 3)\nGROUP BY 1, 2, 3\nORDER BY records DESC",
  ],
  [
    "Longest connections",
    "SELECT sourceIP, destinationIP, destinationTransportPort, max(flowEndSeconds - flowStartSeconds) AS seconds\nFROM flows\nGROUP BY 1, 2, 3\nORDER BY seconds DESC\nLIMIT 20",
  ],
];
const DEFAULT = EXAMPLES[0]?.[1] ?? "";
const MOST = 5000;

interface Ran {
  result: SqlResult | null;
  error: ApiError | null;
  seconds: number;
}

export default function Sql() {
  const place = useRef<HTMLDivElement>(null);
  const editor = useRef<Editor | null>(null);
  const running = useRef<AbortController | null>(null);
  const [busy, work] = useState(false);
  const [ran, set] = useState<Ran>({ result: null, error: null, seconds: 0 });
  const wanted = parameter("query", DEFAULT);

  const run = async () => {
    const query = editor.current?.text().trim() ?? "";
    if (!query) return;
    change({ query: query === DEFAULT ? null : query }, true);
    running.current?.abort();
    const abort = new AbortController();
    running.current = abort;
    work(true);
    const since = performance.now();
    const seconds = () => (performance.now() - since) / 1000;
    try {
      const asked = { query, maxRows: MOST };
      const result = plain(await post<SqlResult>("sql", asked, abort.signal, exactly));
      set({ result, error: broken(result), seconds: seconds() });
    } catch (error) {
      if (error instanceof ApiError) set({ result: null, error, seconds: seconds() });
    }
    if (running.current === abort) work(false);
  };
  const latest = useRef(run);
  latest.current = run;
  // Before it is seen: who clicks at once runs what is in it.
  useLayoutEffect(() => {
    if (!place.current) return;
    const columns = (fields.value?.names ?? [])
      .map((each) => each.name)
      .filter((each) => /^[a-z]+[A-Z]/.test(each));
    const made = edit(place.current, wanted, { flows: columns }, () => void latest.current());
    editor.current = made;
    return () => {
      running.current?.abort();
      made.end();
    };
  }, []);
  useEffect(() => {
    if (editor.current && editor.current.text().trim() !== wanted) editor.current.write(wanted);
  }, [wanted]);

  const stop = () => {
    running.current?.abort();
    work(false);
  };
  return (
    <div class="sql">
      <Panel
        title="SQL"
        aside={
          <>
            <span>read-only; table flows</span>
            <select
              aria-label="Examples"
              value=""
              onChange={(event) =>
                editor.current?.write(EXAMPLES[Number(event.currentTarget.value)]?.[1] ?? "")
              }
            >
              <option value="">Examples…</option>
              {EXAMPLES.map(([name], at) => (
                <option key={name} value={at}>
                  {name}
                </option>
              ))}
            </select>
            {busy ? (
              <button type="button" onClick={stop}>
                Stop
              </button>
            ) : (
              <button
                type="button"
                class="primary"
                onClick={() => void run()}
                data-tip="Ctrl+Enter"
              >
                Run
              </button>
            )}
          </>
        }
      >
        <div class="editor" ref={place} />
      </Panel>
      <Panel title={ran.result ? "Rows" : "Result"} class="fills" aside={<Said ran={ran} />}>
        {ran.error && <Failure error={ran.error} again={() => void run()} />}
        {ran.result && <Rows result={ran.result} />}
        {!ran.error && !ran.result && <p class="state">Ctrl+Enter runs the query.</p>}
      </Panel>
    </div>
  );
}

/** Maps, tuples and arrays as the JSON that they came as. */
function plain(result: SqlResult): SqlResult {
  const cell = (value: Cell) =>
    typeof value === "object" && value !== null ? JSON.stringify(value) : value;
  return { ...result, rows: result.rows.map((row) => row.map(cell)) };
}

function broken(result: SqlResult): ApiError | null {
  if (!result.error) return null;
  const message = typeof result.error === "string" ? result.error : result.error.message;
  return new ApiError(200, "bad-query", { message });
}

function Said({ ran: { result, seconds } }: { ran: Ran }) {
  if (!result) return null;
  return (
    <>
      <span>
        {several(result.rows.length, "row")}
        {result.truncated ? ", cut off" : ""} in {said(seconds, "s")}
      </span>
      <button
        type="button"
        onClick={() => download("query.csv", "text/csv", csv(result.columns, result.rows))}
      >
        CSV
      </button>
    </>
  );
}

function Rows({ result }: { result: SqlResult }) {
  const numeric = result.types.map((each) =>
    /^(U?Int|Float|Decimal|Nullable\((U?Int|Float))/.test(each),
  );
  return (
    <Table<Cell[]>
      label="Rows of the query"
      scrolls
      rows={result.rows}
      id={(_, at) => String(at)}
      columns={result.columns.map((name, at) => ({
        key: `${name} ${at}`,
        title: name,
        tip: result.types[at] ?? "",
        numeric: numeric[at] ?? false,
        cell: (row: Cell[]) => {
          const text = visible(String(row[at] ?? ""));
          return (
            <span class={numeric[at] ? "num" : undefined} data-tip={text}>
              {text}
            </span>
          );
        },
        order: (row: Cell[]) => (numeric[at] ? Number(row[at]) : String(row[at])),
      }))}
    />
  );
}
