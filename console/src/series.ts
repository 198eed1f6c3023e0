// What a series was like: over its intervals.
export interface Summary {
  min: number;
  mean: number;
  p95: number;
  max: number;
  last: number;
}

export function summary(values: (number | null)[]): Summary | null {
  const known = values.filter((each) => each !== null);
  if (!known.length) return null;
  const ordered = [...known].sort((a, b) => a - b);
  const at = (share: number) =>
    ordered[Math.min(Math.ceil(share * ordered.length), ordered.length) - 1] ?? 0;
  return {
    min: ordered[0] ?? 0,
    mean: known.reduce((sum, each) => sum + each, 0) / known.length,
    p95: at(0.95),
    max: ordered.at(-1) ?? 0,
    last: known.at(-1) ?? 0,
  };
}
