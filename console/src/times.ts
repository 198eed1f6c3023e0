// Points in time and ranges, as the URL and the API write them: "now", "-15m", ISO 8601, epoch ms.

const SECONDS: Record<string, number> = {
  ms: 0.001,
  s: 1,
  m: 60,
  h: 3600,
  d: 86_400,
  w: 604_800,
};

export const PRESETS: [string, string][] = [
  ["-5m", "Last 5 minutes"],
  ["-15m", "Last 15 minutes"],
  ["-1h", "Last hour"],
  ["-6h", "Last 6 hours"],
  ["-24h", "Last 24 hours"],
  ["-7d", "Last 7 days"],
];

/** The last moment that a Date has (ECMA-262, 21.4.1.1); of those before 1970 the first is as far. */
export const LATEST = 8.64e15;

/** Milliseconds since the epoch of a point in time; null where it is none. */
export function moment(text: string, now: number): number | null {
  const value = point(text, now);
  return value !== null && Math.abs(value) <= LATEST ? value : null;
}

function point(text: string, now: number): number | null {
  if (text === "now") return now;
  const relative = /^(?:now)?\s*([+-])\s*(\d+)(ms|[smhdw])$/.exec(text);
  if (relative) {
    const [, sign, count, unit = ""] = relative;
    return now + Number(`${sign}${count}`) * (SECONDS[unit] ?? 0) * 1000;
  }
  if (/^\d{11,}$/.test(text)) return Number(text);
  if (!/^\d{4}-\d\d-\d\d/.test(text)) return null;
  const zoned = /(Z|[+-]\d\d:?\d\d)$/.test(text) ? text : `${text}Z`;
  const value = Date.parse(text.length <= 10 ? text : zoned);
  return Number.isNaN(value) ? null : value;
}

export interface Range {
  from: number;
  to: number;
}

/** The range that two texts mean now; null where one is no point in time or they are reversed. */
export function range(from: string, to: string, now: number): Range | null {
  const begin = moment(from, now);
  const end = moment(to, now);
  return begin === null || end === null || begin >= end ? null : { from: begin, to: end };
}

/** A point in time as the URL has it. */
export function written(ms: number): string {
  return new Date(Math.round(ms)).toISOString().replace(/\.000Z$/, "Z");
}

const two = (value: number) => String(value).padStart(2, "0");

export function clock(ms: number, withSeconds = true): string {
  const at = new Date(ms);
  const text = `${two(at.getHours())}:${two(at.getMinutes())}`;
  return withSeconds ? `${text}:${two(at.getSeconds())}` : text;
}

export function day(ms: number): string {
  const at = new Date(ms);
  return `${at.getFullYear()}-${two(at.getMonth() + 1)}-${two(at.getDate())}`;
}

export function date(ms: number): string {
  return `${day(ms)} ${clock(ms)}`;
}

/** Local time in full, and UTC beside it: for tooltips. */
export function fully(ms: number): string {
  const fraction = String(Math.round(ms) % 1000).padStart(3, "0");
  return `${date(ms)}.${fraction} (${written(ms)})`;
}

/** How long ago, in words. */
export function ago(seconds: number): string {
  if (seconds < 1) return "now";
  if (seconds < 90) return `${Math.round(seconds)} s ago`;
  if (seconds < 5400) return `${Math.round(seconds / 60)} min ago`;
  if (seconds < 129_600) return `${Math.round(seconds / 3600)} h ago`;
  return `${Math.round(seconds / 86_400)} d ago`;
}

/** What a range is called in the bar. */
export function called(from: string, to: string, now: number): string {
  const preset = to === "now" ? PRESETS.find(([each]) => each === from) : undefined;
  if (preset) return preset[1];
  const both = range(from, to, now);
  if (!both) return `${from} to ${to}`;
  if (to === "now" && /[a-z]$/.test(from)) return `Last ${lasting(both.to - both.from)}`;
  if (to === "now") return `${date(both.from)} – now`;
  const end = day(both.from) === day(both.to) ? clock(both.to) : date(both.to);
  return `${date(both.from)} – ${end}`;
}

const WORDS: [number, string][] = [
  [86_400, "day"],
  [3600, "hour"],
  [60, "minute"],
  [1, "second"],
];

/** A length in words, exactly: "7 days", "hour", "90 minutes". */
function lasting(ms: number): string {
  const seconds = ms / 1000;
  const [size, word] = WORDS.find(([each]) => seconds % each === 0) ?? [1, "second"];
  const count = seconds / size;
  return count === 1 ? word : `${count} ${word}s`;
}

/** From one point in time to another, the day only where it is not today's or there are two. */
export function between(from: number, to: number): string {
  const days = new Set([from, to, Date.now()].map(day));
  const said = days.size > 1 ? date : clock;
  return `${said(from)} – ${day(from) === day(to) ? clock(to) : said(to)}`;
}

const TICKS = [
  1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10_800, 21_600, 43_200, 86_400,
  172_800, 604_800, 1_209_600, 2_592_000,
];

export interface Tick {
  at: number;
  label: string;
}

/** Round local times of an axis, at most `count` of them. */
export function ticks(from: number, to: number, count: number): Tick[] {
  const least = (to - from) / 1000 / Math.max(count, 1);
  const step = (TICKS.find((each) => each >= least) ?? 2_592_000) * 1000;
  const offset = (ms: number) => new Date(ms).getTimezoneOffset() * 60_000;
  const here = offset(from);
  const made: Tick[] = [];
  for (let local = Math.ceil((from - here) / step) * step; ; local += step) {
    const at = local + offset(local + here); // clocks may be set within the range
    if (at > to) return made;
    const midnight = local % 86_400_000 === 0;
    const label = midnight ? day(at).slice(5) : clock(at, step < 60_000);
    if (at >= from) made.push({ at, label });
  }
}
