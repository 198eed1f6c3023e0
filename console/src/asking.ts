// Asking the API from a component: the last answer stays on the page while the next one comes.
import { computed, signal } from "@preact/signals";
import { useEffect, useRef, useState } from "preact/hooks";
import { type Answer, ApiError, address, get, type Parameters, passes } from "./api";
import { DEFAULT_FROM, DEFAULT_TO, parameter, parameters } from "./location";
import { range } from "./times";

export interface Asked<T> {
  value: T | null;
  error: ApiError | null;
  /** Nothing has come yet for what is asked now. */
  loading: boolean;
  /** When the value came, ms since the epoch. */
  since: number;
}

/** What the bar says, as the API's common parameters. */
export function asked(): Parameters {
  return {
    from: parameter("from", DEFAULT_FROM),
    to: parameter("to", DEFAULT_TO),
    filter: parameter("filter"),
  };
}

/** Range, filter and comparison. */
export function compared(): Parameters {
  return { ...asked(), compare: parameter("compare") };
}

/** The page does not move by itself. */
export const paused = signal(false);

/** Until what may have an answer in a moment is asked again, whatever the range. */
const RETRY_S = 5;
/** Between two askings about now, where the range is of another time. */
const NOW_S = 10;
/** Who waits longer for the last answer of a page asks without it. */
const PATIENCE_S = 120;

/** The range ends now, and somebody holds it. */
const holds = computed(() => paused.value && (parameters.value.get("to") ?? DEFAULT_TO) === "now");

/** Goes up each time that what is shown has to be asked anew. */
export const turn = signal(0);

/** Seconds between two askings while the range ends now, whole ones; 0 where it does not. */
export const period = computed(() => {
  const at = parameters.value;
  const to = at.get("to") ?? DEFAULT_TO;
  if (to !== "now" || paused.value) return 0;
  const now = Date.now();
  const length = range(at.get("from") ?? DEFAULT_FROM, to, now);
  if (!length) return 0;
  return Math.round(Math.min(Math.max((length.to - length.from) / 180_000, 5), 300));
});

export function askAnew(): void {
  clearTimeout(due);
  due = undefined;
  turn.value += 1;
}

interface Given {
  answer?: Answer;
}

/** The answers that are on the page, by who asked. */
const given = signal<ReadonlyMap<symbol, Answer>>(new Map());
/** What the API refused about the filter that is in the URL. */
export const refused = signal<{ filter: string; error: ApiError } | null>(null);

export const answers = computed(() => [...given.value.values()]);

function note(who: symbol, answer: Answer | undefined): void {
  const next = new Map(given.value);
  if (answer) next.set(who, answer);
  else if (!next.delete(who)) return;
  given.value = next;
}

/** What an error says of a question; null: somebody gave it up. */
export function judge(error: unknown, parameters: Parameters): ApiError | null {
  if (!(error instanceof ApiError)) {
    if (error instanceof DOMException && error.name === "AbortError") return null;
    return new ApiError(0, "console", { message: String(error) });
  }
  const filter = String(parameters.filter ?? "");
  if (error.code === "bad-filter" && filter === parameter("filter")) {
    refused.value = { filter, error };
  }
  return error;
}

/** When a question is asked again by itself: as the range moves, always as it is of now, or never. */
export type Often = "moves" | "now" | "once";

/** The answer to a path with parameters; `path` null asks nothing. */
export function useAnswer<T extends object>(
  path: string | null,
  parameters: Parameters,
  often: Often = "moves",
): Asked<T> {
  const url = path === null ? null : address(path, parameters);
  const [state, set] = useState<Asked<T> & { url: string | null }>({
    url: null,
    value: null,
    error: null,
    loading: true,
    since: 0,
  });
  const who = useRef(Symbol(path ?? ""));
  const shown = useRef<string | null>(null); // the question whose answer is on the page
  const [alone, askAlone] = useState(0);
  const anew = turn.value;

  useEffect(() => {
    if (path === null) return note(who.current, undefined);
    const abort = new AbortController();
    const over = begun();
    get<T>(path, parameters, abort.signal)
      .then(
        (value) => {
          shown.current = url;
          note(who.current, (value as Given | null)?.answer);
          set({ url, value, error: null, loading: false, since: Date.now() });
        },
        (cause) => {
          const error = judge(cause, parameters);
          if (!error) return;
          // What was shown of the same question stays where it may have an answer in a moment.
          const keeps = passes(error) && shown.current === url;
          if (!keeps) {
            shown.current = null;
            note(who.current, undefined);
          }
          set(({ value, since }) => ({
            ...(keeps ? { value, since } : { value: null, since: 0 }),
            url,
            error,
            loading: false,
          }));
        },
      )
      .finally(over);
    return () => {
      abort.abort();
      over();
    };
  }, [url, anew, alone]);

  const moves = often === "once" ? 0 : period.value;
  const stays = often === "now" && !moves && !holds.value ? NOW_S : 0;
  const wait = passes(state.error) ? RETRY_S : moves || stays;
  useEffect(() => {
    if (!wait || path === null || state.loading) return;
    const timer = setTimeout(() => {
      if (document.hidden) missed = true;
      else if (wait === stays) askAlone((count) => count + 1);
      else askWhole();
    }, wait * 1000);
    return () => clearTimeout(timer);
  }, [wait, path, state]);

  useEffect(() => () => note(who.current, undefined), []);
  return { ...state, loading: state.loading || state.url !== url };
}

/** Questions that wait for their answers. */
let open = 0;
/** The page is to be asked anew as soon as none does. */
let due: ReturnType<typeof setTimeout> | undefined;
/** Something was to be asked while nobody looked. */
let missed = false;

/** A question has been asked; returns what says, once or more often, that it waits no longer. */
function begun(): () => void {
  let waits = true;
  open += 1;
  return () => {
    if (waits) open -= 1;
    waits = false;
    askIfAnswered();
  };
}

/**
 * All parts of a page ask together, so that their numbers are of one moment. The slowest one's
 * answer is waited for: it would never come if the others' next questions ended it.
 */
function askWhole(): void {
  due ??= setTimeout(askAnew, PATIENCE_S * 1000);
  askIfAnswered();
}

/** In a moment, when whoever asks another question now has asked it. */
function askIfAnswered(): void {
  setTimeout(() => {
    if (due !== undefined && open === 0) askAnew();
  }, 0);
}

document.addEventListener("visibilitychange", () => {
  if (document.hidden || !(period.value || missed)) return;
  missed = false;
  askWhole();
});
