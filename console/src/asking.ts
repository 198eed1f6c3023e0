// Asking the API from a component: the last answer stays on the page while the next one comes.
import { computed, signal } from "@preact/signals";
import { useEffect, useRef, useState } from "preact/hooks";
import { type Answer, ApiError, address, get, type Parameters } from "./api";
import { DEFAULT_FROM, DEFAULT_TO, parameter, parameters } from "./location";
import { range } from "./times";

export interface Asked<T> {
  value: T | null;
  error: ApiError | null;
  /** Nothing has come yet for what is asked now. */
  loading: boolean;
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

/** Goes up each time that what is shown has to be asked anew. */
export const turn = signal(0);

/** Seconds between two askings while the range ends now; 0 where it does not. */
export const period = computed(() => {
  const at = parameters.value;
  const to = at.get("to") ?? DEFAULT_TO;
  if (to !== "now" || paused.value) return 0;
  const now = Date.now();
  const length = range(at.get("from") ?? DEFAULT_FROM, to, now);
  return length ? Math.min(Math.max((length.to - length.from) / 180_000, 5), 300) : 0;
});

export function askAnew(): void {
  turn.value += 1;
}

interface Given {
  answer?: Answer;
}

/** The answers that are on the page, by who asked. */
const given = signal<ReadonlyMap<symbol, Answer>>(new Map());
/** What the API refused about the filter that is in the URL. */
export const refused = signal<{ filter: string; error: ApiError } | null>(null);
/** The session is over, or was never begun. */
export const loggedOut = signal(false);
/** When the aggregator last answered, and whether it does. */
export const unreachable = signal(false);

export const answers = computed(() => [...given.value.values()]);

function note(who: symbol, answer: Answer | undefined): void {
  const next = new Map(given.value);
  if (answer) next.set(who, answer);
  else if (!next.delete(who)) return;
  given.value = next;
}

function judge(error: unknown, parameters: Parameters): ApiError | null {
  if (!(error instanceof ApiError)) {
    if (error instanceof DOMException && error.name === "AbortError") return null;
    return new ApiError(0, "console", { message: String(error) });
  }
  if (error.status === 401) loggedOut.value = true;
  unreachable.value = error.status === 0;
  const filter = String(parameters.filter ?? "");
  if (error.code === "bad-filter" && filter === parameter("filter")) {
    refused.value = { filter, error };
  }
  return error;
}

/**
 * The answer to a path with parameters, asked again as time goes on where the range ends now.
 * `path` null asks nothing.
 */
export function useAnswer<T extends object>(
  path: string | null,
  parameters: Parameters,
  often = true,
): Asked<T> {
  const url = path === null ? null : address(path, parameters);
  const [state, set] = useState<Asked<T> & { url: string | null }>({
    url: null,
    value: null,
    error: null,
    loading: true,
  });
  const who = useRef(Symbol(path ?? ""));
  const anew = turn.value;

  useEffect(() => {
    if (path === null) return;
    const abort = new AbortController();
    get<T>(path, parameters, abort.signal).then(
      (value) => {
        unreachable.value = false;
        note(who.current, (value as Given | null)?.answer);
        set({ url, value, error: null, loading: false });
      },
      (cause) => {
        const error = judge(cause, parameters);
        if (error) {
          set((old) => {
            const value = old.url === url ? keeps(old, error) : null;
            return { url, value, error, loading: false };
          });
        }
      },
    );
    return () => abort.abort();
  }, [url, anew]);

  const wait = passes(state.error) ? RETRY_S : often ? period.value : 0;
  useEffect(() => {
    if (!wait || path === null) return;
    // From an answer to the next question: a slow store is not asked faster than it answers.
    if (state.loading) return;
    const timer = setTimeout(() => {
      if (!document.hidden) askWhole();
    }, wait * 1000);
    return () => clearTimeout(timer);
  }, [wait, path, state]);

  useEffect(() => () => note(who.current, undefined), []);
  return { ...state, loading: state.loading || state.url !== url };
}

/** What was shown of the same question stays where only the connection failed. */
function keeps<T>(old: Asked<T>, error: ApiError): T | null {
  return passes(error) ? old.value : null;
}

/** The same question may have an answer in a moment: nothing answered, or too much was asked. */
function passes(error: ApiError | null): boolean {
  return error !== null && [0, 429, 503].includes(error.status);
}

let due: ReturnType<typeof setTimeout> | undefined;

/** All parts of a page ask together, so that their numbers are of one moment. */
function askWhole(): void {
  if (due !== undefined) return;
  due = setTimeout(() => {
    due = undefined;
    askAnew();
  }, 0);
}

document.addEventListener("visibilitychange", () => {
  if (!document.hidden && period.value) askAnew();
});
