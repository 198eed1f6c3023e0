// Numbers as people say them: three digits that count and a unit. The exact value goes into the
// tooltip, see `exact`.
import type { Cell } from "./api";

export interface Quantity {
  number: string;
  unit: string;
}

const NOTHING: Quantity = { number: "–", unit: "" };
const STEPS = ["", "k", "M", "G", "T", "P", "E"];

function digits(value: number): string {
  if (value === 0) return "0";
  const size = Math.abs(value);
  if (size >= 100 || Number.isInteger(value)) return value.toFixed(0);
  return size >= 10 ? value.toFixed(1) : value.toFixed(2);
}

/** A value with a decimal prefix before its unit: 12345678 B -> 12.3 MB. */
function scaled(value: number, unit: string): Quantity {
  let step = 0;
  let rest = value;
  while (Math.abs(rest) >= 999.5 && step < STEPS.length - 1) {
    rest /= 1000;
    step += 1;
  }
  return { number: step ? rest.toPrecision(3) : digits(rest), unit: `${STEPS[step]}${unit}` };
}

const SPANS: [number, string][] = [
  [86_400, "d"],
  [3600, "h"],
  [60, "min"],
  [1, "s"],
];

function span(seconds: number): Quantity {
  if (Math.abs(seconds) < 1) return { number: digits(seconds * 1000), unit: "ms" };
  const [size, unit] = SPANS.find(([each]) => Math.abs(seconds) >= each) ?? [1, "s"];
  return { number: digits(seconds / size), unit };
}

/** Short form of a value in one of the API's units. */
export function quantity(value: number | null | undefined, unit: string | null = ""): Quantity {
  if (value === null || value === undefined || !Number.isFinite(value)) return NOTHING;
  switch (unit) {
    case "octets":
    case "bytes":
    case "B":
      return scaled(value, "B");
    case "bit/s":
    case "bits per second":
      return scaled(value, "bit/s");
    case "seconds":
    case "s":
      return span(value);
    case "milliseconds":
    case "ms":
      return span(value / 1000);
    case "%":
      return { number: percent(value), unit: "%" };
    case "/s":
      return scaled(value, "/s");
    default:
      return scaled(value, "");
  }
}

/** 99.95 stays below 100: only what is whole is called whole. */
export function percent(value: number): string {
  if (value >= 100 || value <= 0) return value.toFixed(0);
  return (Math.floor(value * 100) / 100).toString();
}

export function said(value: number | null | undefined, unit: string | null = ""): string {
  const { number, unit: written } = quantity(value, unit);
  return written ? `${number}\u202f${written}` : number;
}

const WHOLE = new Intl.NumberFormat("en", { maximumFractionDigits: 3 });
const UNITS: Record<string, string> = { octets: "bytes", "": "" };

/** The value itself, in groups of three digits. */
export function exact(value: Cell | undefined, unit: string | null = ""): string {
  if (typeof value !== "number") return value === null || value === undefined ? "" : String(value);
  const name = UNITS[unit ?? ""] ?? unit ?? "";
  return name ? `${WHOLE.format(value)} ${name}` : WHOLE.format(value);
}

/** As on an axis: no zeros that say nothing. */
export function round(value: number, unit: string | null = ""): string {
  return said(value, unit)
    .replace(/(\.\d*?)0+(?=\D|$)/, "$1")
    .replace(/\.(?=\D|$)/, "");
}
