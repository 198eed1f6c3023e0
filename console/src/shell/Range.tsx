// The range and what it is compared with.
import { useState } from "preact/hooks";
import { askAnew, paused, period, turn } from "../asking";
import { change, DEFAULT_FROM, DEFAULT_TO, parameter } from "../location";
import { Icon } from "../parts/icons";
import { Menu } from "../parts/Menu";
import { called, moment, PRESETS, range, written } from "../times";

/** datetime-local has the browser's local time and no offset. */
function local(ms: number): string {
  const shifted = new Date(ms - new Date(ms).getTimezoneOffset() * 60_000);
  return shifted.toISOString().slice(0, 19);
}

function Points({ close }: { close: () => void }) {
  const now = Date.now();
  const shown = range(parameter("from", DEFAULT_FROM), parameter("to", DEFAULT_TO), now);
  const [from, setFrom] = useState(local(shown?.from ?? now - 900_000));
  const [to, setTo] = useState(local(shown?.to ?? now));
  const [begin, end] = [new Date(from).getTime(), new Date(to).getTime()];
  const wrong = Number.isNaN(begin) || Number.isNaN(end) || begin >= end;
  const apply = (event: Event) => {
    event.preventDefault();
    change({ from: written(begin), to: written(end) });
    close();
  };
  return (
    <form onSubmit={apply} class="points">
      <label>
        From
        <input
          type="datetime-local"
          step="1"
          value={from}
          onInput={(event) => setFrom(event.currentTarget.value)}
        />
      </label>
      <label>
        To
        <input
          type="datetime-local"
          step="1"
          value={to}
          onInput={(event) => setTo(event.currentTarget.value)}
        />
      </label>
      {wrong && <p class="problem">The end has to be after the beginning.</p>}
      <button type="submit" class="primary" disabled={wrong}>
        Show
      </button>
    </form>
  );
}

/** Move the range by its own length: earlier (-1) or later (1). */
function shift(direction: number): void {
  const now = Date.now();
  const shown = range(parameter("from", DEFAULT_FROM), parameter("to", DEFAULT_TO), now);
  if (!shown) return;
  const length = (shown.to - shown.from) * direction;
  if (shown.to + length >= now && direction > 0) {
    change({ to: null, from: parameter("to") === "" ? parameter("from") : `-${seconds(shown)}s` });
  } else change({ from: written(shown.from + length), to: written(shown.to + length) });
}

function seconds(shown: { from: number; to: number }): number {
  return Math.round((shown.to - shown.from) / 1000);
}

export function RangePicker() {
  const from = parameter("from", DEFAULT_FROM);
  const to = parameter("to", DEFAULT_TO);
  turn.value; // what is relative to now is said anew with every question
  const now = Date.now();
  const wrong = moment(from, now) === null || moment(to, now) === null;
  return (
    <div class="range group">
      <button type="button" aria-label="Earlier" data-tip="Earlier" onClick={() => shift(-1)}>
        <Icon name="back" />
      </button>
      <Menu
        name="Time range:"
        label={
          <>
            <Icon name="clock" />
            <span class={wrong ? "problem" : undefined}>{called(from, to, now)}</span>
            <Icon name="down" />
          </>
        }
      >
        {(close) => (
          <>
            <ul class="choices">
              {PRESETS.map(([value, name]) => (
                <li key={value}>
                  <button
                    type="button"
                    aria-pressed={from === value && to === "now"}
                    onClick={() => {
                      change({ from: value, to: null });
                      close();
                    }}
                  >
                    {name}
                  </button>
                </li>
              ))}
            </ul>
            <Points close={close} />
          </>
        )}
      </Menu>
      <button type="button" aria-label="Later" data-tip="Later" onClick={() => shift(1)}>
        <Icon name="forward" />
      </button>
      {to === "now" ? (
        <button
          type="button"
          aria-pressed={!paused.value}
          aria-label={paused.value ? "Go on" : "Hold"}
          data-tip={
            paused.value
              ? "Go on: the range moves with time"
              : `Hold (asks every ${period.value} s)`
          }
          onClick={() => {
            paused.value = !paused.value;
          }}
        >
          <Icon name={paused.value ? "play" : "pause"} />
        </button>
      ) : null}
      <button type="button" aria-label="Ask again" data-tip="Ask again now" onClick={askAnew}>
        <Icon name="refresh" />
      </button>
    </div>
  );
}

const COMPARISONS: [string, string][] = [
  ["", "Compare with nothing"],
  ["previous", "Compare with the time before"],
  ["-1h", "Compare with an hour before"],
  ["-1d", "Compare with a day before"],
  ["-7d", "Compare with a week before"],
];

export function ComparePicker() {
  const value = parameter("compare");
  const known = COMPARISONS.some(([each]) => each === value);
  return (
    <select
      class="compare"
      aria-label="Compare"
      value={value}
      onChange={(event) => change({ compare: event.currentTarget.value })}
    >
      {COMPARISONS.map(([each, name]) => (
        <option key={each} value={each}>
          {name}
        </option>
      ))}
      {!known && <option value={value}>Compare with {value}</option>}
    </select>
  );
}
