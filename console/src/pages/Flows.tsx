// Records, live or past. What a row knows opens beside it.
import type { ComponentChildren } from "preact";
import { useEffect, useState } from "preact/hooks";
import { type ApiError, type FlowRecord, type Flows as FlowsAnswer, get } from "../api";
import { asked, judge, useAnswer } from "../asking";
import { download } from "../export";
import { change, parameter } from "../location";
import { Icon } from "../parts/icons";
import { Menu } from "../parts/Menu";
import { Answered, Failure, Panel } from "../parts/Panel";
import { Table, type TableColumn } from "../parts/Table";
import { Num } from "../parts/values";
import * as fields from "../records";
import { several } from "../texts";
import { BESIDE, COLUMNS, chosen, DEFAULT } from "./flows/columns";
import { RecordSide } from "./flows/Record";
import { LOST, useLive } from "./flows/useLive";

const PAGE = 200;
const MOST = 20_000; // rows kept by a page that is scrolled on and on

export default function Flows() {
  const live = parameter("live") === "1";
  return live ? <LiveFlows /> : <PastFlows />;
}

function shownColumns(): TableColumn<FlowRecord>[] {
  return chosen(parameter("columns", parameter("flow") ? BESIDE : DEFAULT));
}

function Chooser() {
  const keys = parameter("columns", DEFAULT).split(",").filter(Boolean);
  const turnKey = (key: string) => {
    const next = keys.includes(key)
      ? keys.filter((each) => each !== key)
      : [
          ...COLUMNS.map((each) => each.key).filter((each) => keys.includes(each) || each === key),
          ...keys.filter((each) => !COLUMNS.some((column) => column.key === each)),
        ];
    const text = next.join(",");
    change({ columns: text === DEFAULT ? null : text }, true);
  };
  return (
    <Menu
      label={
        <>
          Columns
          <Icon name="down" />
        </>
      }
      right
    >
      {() => (
        <>
          <ul class="checks">
            {COLUMNS.map((column) => (
              <li key={column.key}>
                <label>
                  <input
                    type="checkbox"
                    checked={keys.includes(column.key)}
                    onChange={() => turnKey(column.key)}
                  />
                  {column.title}
                </label>
              </li>
            ))}
          </ul>
          <form
            class="points"
            onSubmit={(event) => {
              event.preventDefault();
              const field = event.currentTarget.elements.namedItem("field");
              if (field instanceof HTMLInputElement && field.value.trim()) {
                const all = new Set([...keys, field.value.trim()]);
                change({ columns: [...all].join(",") }, true);
                field.value = "";
              }
            }}
          >
            <input name="field" placeholder="Any field, by its name" aria-label="Any field" />
          </form>
          <button type="button" onClick={() => change({ columns: null }, true)}>
            As at first
          </button>
        </>
      )}
    </Menu>
  );
}

function Modes({ live }: { live: boolean }) {
  return (
    <fieldset class="group" aria-label="Live or past">
      <button type="button" aria-pressed={!live} onClick={() => change({ live: null })}>
        Past
      </button>
      <button type="button" aria-pressed={live} onClick={() => change({ live: "1", flow: null })}>
        Live
      </button>
    </fieldset>
  );
}

interface Pages {
  of: FlowsAnswer | null;
  more: FlowRecord[];
  cursor: string | null;
  error: ApiError | null;
  busy: boolean;
}

const NO_MORE: Pages = { of: null, more: [], cursor: null, error: null, busy: false };

function PastFlows() {
  const question = { ...asked(), limit: PAGE, columns: "*" };
  const result = useAnswer<FlowsAnswer>("flows", question, "once");
  const [pages, turnPages] = useState<Pages>(NO_MORE);
  const first = result.value;
  useEffect(() => turnPages({ ...NO_MORE, of: first, cursor: first?.cursor ?? null }), [first]);

  const lines = first ? [...fields.records(first), ...(pages.of === first ? pages.more : [])] : [];
  const end = async () => {
    if (!pages.cursor || pages.busy || !first || lines.length >= MOST) return;
    const { from, to } = first.answer; // of the first page: later ones are of the same range
    turnPages((old) => ({ ...old, error: null, busy: true }));
    try {
      const next = await get<FlowsAnswer>("flows", { ...question, from, to, cursor: pages.cursor });
      turnPages((old) =>
        old.of === first
          ? {
              ...old,
              more: [...old.more, ...fields.records(next)],
              cursor: next.cursor,
              busy: false,
            }
          : old,
      );
    } catch (error) {
      const refusal = judge(error, question);
      turnPages((old) => (old.of === first ? { ...old, error: refusal, busy: false } : old));
    }
  };

  return (
    <FlowsFrame
      live={false}
      lines={lines}
      status={
        first && (
          <>
            <Num value={lines.length} /> {lines.length === 1 ? "record" : "records"}
            {pages.cursor ? ", more below" : ""}
          </>
        )
      }
    >
      <Answered
        asked={result}
        empty={(value) =>
          !value.rows.length &&
          (parameter("filter")
            ? "No record in this range matches the filter."
            : "No record in this range.")
        }
      >
        {() => (
          <Table
            label="Flow records"
            rows={lines}
            id={fields.key}
            columns={shownColumns()}
            onOpen={(line) => open(line)}
            opened={parameter("flow")}
            mark={marked}
            onEnd={() => !pages.error && void end()}
            scrolls
          />
        )}
      </Answered>
      {pages.error && <Failure error={pages.error} again={() => void end()} />}
    </FlowsFrame>
  );
}

function open(line: FlowRecord): void {
  if (LOST in line) return;
  const name = fields.key(line);
  change({ flow: name === parameter("flow") ? null : name }, parameter("flow") !== "");
}

function marked(line: FlowRecord): string {
  if (LOST in line) return "is-unsure";
  return fields.denied(line) ? "is-denied" : "";
}

function LiveFlows() {
  const [held, hold] = useState(false);
  const [attempt, begin] = useState(0);
  const state = useLive(parameter("filter"), attempt, held);
  const columns = shownColumns().map((column, at) => ({
    ...column,
    cell: (line: FlowRecord, row: number) =>
      LOST in line
        ? at === 0 && (
            <span class="lost-line">
              {several(Number(line[LOST]), "record")} lost: this page was too slow, or not connected
            </span>
          )
        : column.cell(line, row),
  }));
  return (
    <FlowsFrame
      live
      lines={state.lines}
      status={
        <>
          {state.connected ? (
            <>
              <Num value={state.rate} unit="/s" /> as they come
            </>
          ) : (
            "connecting…"
          )}
          {held && state.waiting > 0 && `, ${state.waiting} waiting`}
          {state.lost > 0 && <span class="tag tag-unsure">{state.lost} lost</span>}
          <button type="button" aria-pressed={held} onClick={() => hold(!held)}>
            <Icon name={held ? "play" : "pause"} />
            {held ? "Go on" : "Hold"}
          </button>
        </>
      }
    >
      {state.error ? (
        <Failure error={state.error} again={() => begin(attempt + 1)} />
      ) : state.lines.length === 0 ? (
        <p class="state">
          {parameter("filter")
            ? "Waiting for a record that matches the filter."
            : "Waiting for the next record."}
        </p>
      ) : (
        <Table
          label="Live flow records"
          rows={state.lines}
          id={(_, at) => String(state.taken - at)}
          columns={columns}
          onOpen={(line) => open(line)}
          mark={marked}
          scrolls
        />
      )}
    </FlowsFrame>
  );
}

interface FrameProps {
  live: boolean;
  lines: FlowRecord[];
  status: ComponentChildren;
  children: ComponentChildren;
}

function FlowsFrame({ live, lines, status, children }: FrameProps) {
  const name = parameter("flow");
  return (
    <div class="beside">
      <Panel
        class="fills"
        title="Flows"
        aside={
          <>
            {status}
            <Modes live={live} />
            <Chooser />
            <button
              type="button"
              disabled={!lines.length}
              data-tip="The records that are on the page, all their fields"
              onClick={() =>
                download(
                  "flows.json",
                  "application/json",
                  JSON.stringify(
                    lines.filter((each) => !(LOST in each)),
                    null,
                    1,
                  ),
                )
              }
            >
              JSON
            </button>
          </>
        }
      >
        {children}
      </Panel>
      {name && (
        <RecordSide
          key={name}
          name={name}
          known={lines.find((each) => fields.key(each) === name) ?? null}
        />
      )}
    </div>
  );
}
