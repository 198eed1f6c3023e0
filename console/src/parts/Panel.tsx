// A titled part of a page, and what it shows while it has nothing to show.
import type { ComponentChildren } from "preact";
import { type ApiError, passes, ApiError as Refusal, unreachable } from "../api";
import { type Asked, askAnew } from "../asking";
import { date } from "../times";

interface PanelProps {
  title: ComponentChildren;
  /** At the right of the title. */
  aside?: ComponentChildren;
  class?: string;
  children: ComponentChildren;
}

export function Panel({ title, aside, children, class: name = "" }: PanelProps) {
  return (
    <section class={`panel ${name}`}>
      <header>
        <h2>{title}</h2>
        {aside && <div class="aside">{aside}</div>}
      </header>
      {children}
    </section>
  );
}

interface AnsweredProps<T> {
  asked: Asked<T>;
  /** What to say where the answer has nothing in it; false or null: there is something. */
  empty?: (value: T) => ComponentChildren;
  /** Pixels that it takes before and after: what is below stays under the pointer. */
  height?: number;
  children: (value: T) => ComponentChildren;
}

/** An answer, or why there is none. */
export function Answered<T>({ asked, empty, height, children }: AnsweredProps<T>) {
  const { value, error, loading, since } = asked;
  if (error && value === null) return <Failure error={error} />;
  if (value === null) return <Waiting height={height} />;
  const nothing = empty?.(value);
  return (
    <div
      class={loading ? "answered waits" : "answered"}
      aria-busy={loading}
      style={height ? { minHeight: `${height}px` } : undefined}
    >
      {error && !unreachable.value && (
        <p class="stale" role="status">
          {error.message} What is shown is of {date(since)}; it is asked again.
        </p>
      )}
      {nothing ? <p class="state">{nothing}</p> : children(value)}
    </div>
  );
}

/** Bars where rows will be; they appear only when it takes long. */
export function Waiting({ height }: { height?: number | undefined }) {
  return (
    <div
      class="skeleton"
      role="status"
      aria-label="Waiting for the answer"
      style={height ? { minHeight: `${height}px` } : undefined}
    >
      <i />
      <i />
      <i />
    </div>
  );
}

const REMEDIES: Record<string, string> = {
  "bad-filter": "It is marked in the filter above.",
  "too-costly": "Take a shorter range, or a filter that leaves less.",
  forbidden: "Who may list Pods in a namespace sees its flows; ask whoever runs the cluster.",
  "no-store": "The aggregator writes to no store that can be asked: configure clickHouse.",
};

/** Of what the page asks again by itself. */
const AGAIN = "It is asked again in a moment.";

interface FailureProps {
  error: ApiError;
  /** Asks again; without it the page does so by itself too. */
  again?: () => void;
}

export function Failure({ error, again }: FailureProps) {
  const remedy =
    error instanceof Refusal
      ? (REMEDIES[error.code] ?? (again || !passes(error) ? undefined : AGAIN))
      : undefined;
  return (
    <div class="state failure" role="alert">
      <p>{error.message}</p>
      {remedy && <p class="faint">{remedy}</p>}
      {error.code !== "bad-filter" && (
        <button type="button" onClick={again ?? askAnew}>
          Ask again
        </button>
      )}
    </div>
  );
}
