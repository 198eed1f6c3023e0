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

/** Names that the filter language finds in any namespace, where the value says none. */
const IN_ANY = /^(?:(?:src|dst)\.)?(?:pod|workload|policy)$/;

/**
 * name = value, as an answer has it; a value that is empty is asked for as such. What has no
 * namespace there is in none, as a policy of the whole cluster.
 */
export function equals(name: string, value: Cell, negated = false): string {
  if (value === "" || value === null) return negated ? `not ${name} is empty` : `${name} is empty`;
  const whole = IN_ANY.test(name) && !String(value).includes("/") ? `/${value}` : value;
  return `${name} ${negated ? "!=" : "="} ${literal(whole)}`;
}

/** Both filters: an `or` at the top of one is put into parentheses. */
export function both(...filters: string[]): string {
  const parts = filters.map((each) => each.trim()).filter(Boolean);
  if (parts.length < 2) return parts[0] ?? "";
  return parts.map((each) => (/\bor\b|\|\|/i.test(each) ? `(${each})` : each)).join(" and ");
}
