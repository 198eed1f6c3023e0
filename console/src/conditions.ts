// Text of the filter language, put together of names and values that were clicked. What it means
// only the aggregator knows.
import type { Cell } from "./api";

const PLAIN = /^[A-Za-z0-9][A-Za-z0-9_./:-]*$/;
const WORDS = new Set(["and", "or", "not", "in", "is", "empty"]);

export function literal(value: Cell): string {
  if (typeof value === "number") return String(value);
  const text = String(value ?? "");
  if (PLAIN.test(text) && !WORDS.has(text.toLowerCase())) return text;
  return `"${text.replaceAll("\\", "\\\\").replaceAll('"', '\\"')}"`;
}

/** name = value; a value that is empty is asked for as such. */
export function equals(name: string, value: Cell, negated = false): string {
  if (value === "" || value === null) return negated ? `not ${name} is empty` : `${name} is empty`;
  return `${name} ${negated ? "!=" : "="} ${literal(value)}`;
}

/** Both filters: an `or` at the top of one is put into parentheses. */
export function both(...filters: string[]): string {
  const parts = filters.map((each) => each.trim()).filter(Boolean);
  if (parts.length < 2) return parts[0] ?? "";
  return parts.map((each) => (/\bor\b|\|\|/i.test(each) ? `(${each})` : each)).join(" and ");
}
