// An answer's rows as what they are: groups with measures.
import type { Cell, Query } from "./api";
import { token } from "./charts/palette";
import type { Series } from "./charts/TimeChart";

export interface Group {
  values: Cell[];
  measures: number[];
  /** Before; null where there was nothing, undefined where nothing is compared. */
  before: number[] | null | undefined;
}

/** What a group's first measure was before, as `Change` takes it. */
export function before(group: Group): number | null | undefined {
  return group.before === null ? null : group.before?.[0];
}

export function groups(query: Query): Group[] {
  const split = query.columns.filter((each) => each.kind === "dimension").length;
  return query.rows.map((row, at) => ({
    values: row.slice(0, split),
    measures: row.slice(split).map(Number),
    before: query.compared?.rows[at],
  }));
}

/** What a group is called. */
export function named(values: Cell[]): string {
  return values.map((each) => (each === "" || each === null ? "none" : String(each))).join(" → ");
}

/** Series of one measure, the largest first, what is left over last. */
export function series(query: Query, measure = 0): Series[] {
  const made = groups(query).map((group, at) => ({
    name: named(group.values) || "all",
    colour: token(at),
    values: query.series?.[at]?.[measure] ?? [],
  }));
  const other = query.otherSeries?.[measure];
  if (other) made.push({ name: "other", colour: token(0, true), values: other });
  return made;
}
