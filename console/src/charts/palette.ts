// Colours of series: classes and tokens of the style sheet, so both themes and exports agree.
export const SERIES = 10;

/** The token of the n-th series; "other" comes last and is grey. */
export function token(index: number, other = false): string {
  return other ? "series-other" : `series-${index % SERIES}`;
}
