// Flows as they come: the latest of them, newest first, and how many a slow page did not get.
import { useEffect, useRef, useState } from "preact/hooks";
import type { ApiError, FlowRecord } from "../../api";
import { judge } from "../../asking";
import { followFlows } from "../../stream";

const KEPT = 2000;
const BEGINS = 100; // records that came before
const DRAWN_EVERY = 250; // ms

export interface Live {
  lines: FlowRecord[];
  /** How many lines there have been: the first one's number, which it keeps. */
  taken: number;
  /** Came while it was held. */
  waiting: number;
  lost: number;
  rate: number;
  connected: boolean;
  error: ApiError | null;
}

const EMPTY: Live = {
  lines: [],
  taken: 0,
  waiting: 0,
  lost: 0,
  rate: 0,
  connected: false,
  error: null,
};

/** Marks the place in the list where records are missing. */
export const LOST = "lost";

/** `attempt`: another number begins anew what was refused. */
export function useLive(filter: string, attempt: number, held: boolean): Live {
  const [state, set] = useState<Live>(EMPTY);
  const hold = useRef(held);
  hold.current = held;

  useEffect(() => {
    set(EMPTY);
    let coming: FlowRecord[] = [];
    let lines: FlowRecord[] = [];
    let taken = 0;
    let waiting = 0; // more than are kept, where it is held for long
    let lost = 0;
    let connected = false;
    let error: ApiError | null = null;
    let recent: [number, number][] = [];
    const stop = followFlows(
      { filter, latest: BEGINS },
      {
        onFlows: (records, live) => {
          coming.push(...records);
          waiting += records.length;
          if (live) recent.push([Date.now(), records.length]);
          if (coming.length > KEPT) coming = coming.slice(-KEPT);
        },
        onLost: (count) => {
          lost += count;
          coming.push({ [LOST]: count });
        },
        onState: (problem, now) => {
          error = problem && judge(problem, { filter });
          connected = now;
        },
      },
    );
    const timer = setInterval(() => {
      const since = Date.now() - 5000;
      recent = recent.filter(([at]) => at > since);
      const rate = recent.reduce((sum, [, count]) => sum + count, 0) / 5;
      if (!hold.current && coming.length) {
        taken += coming.length;
        lines = [...coming.reverse(), ...lines].slice(0, KEPT);
        coming = [];
        waiting = 0;
      }
      set({ lines, taken, waiting, lost, rate, connected, error });
    }, DRAWN_EVERY);
    return () => {
      stop();
      clearInterval(timer);
    };
  }, [filter, attempt]);
  return state;
}
