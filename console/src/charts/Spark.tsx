import { scaleLinear } from "d3-scale";
import { line } from "d3-shape";

/** A line as small as a word. */
export function Spark({ values, denied = false }: { values: (number | null)[]; denied?: boolean }) {
  const y = scaleLinear([0, Math.max(...values.map((value) => value ?? 0), 1e-9)], [30, 2]);
  const x = scaleLinear([0, Math.max(values.length - 1, 1)], [0, 100]);
  // One value is as wide as its interval.
  const points = values.length === 1 ? [...values, ...values] : values;
  const path = line<number | null>()
    .x((_, at) => x(at))
    .y((value) => y(value ?? 0))(points);
  return (
    <svg class="spark" viewBox="0 0 100 32" preserveAspectRatio="none" aria-hidden="true">
      <path class={denied ? "denied" : undefined} d={path ?? ""} />
    </svg>
  );
}

/** How much of a whole, as a bar; above 80 % and 95 % it says so. */
export function Share({ of, warns = false }: { of: number; warns?: boolean }) {
  const part = Math.min(Math.max(of, 0), 1) * 100;
  const state = !warns || of < 0.8 ? "" : of < 0.95 ? " high" : " full";
  return (
    <svg class="share" viewBox="0 0 100 8" preserveAspectRatio="none" aria-hidden="true">
      <rect class="back" width="100" height="8" />
      <rect class={`front${state}`} width={part} height="8" />
    </svg>
  );
}
