// A row for each group, a column for each interval, the darker the more.
import { scaleSqrt } from "d3-scale";
import { said } from "../quantities";
import { shortened, visible } from "../texts";
import { date, ticks } from "../times";
import { useWidth } from "./size";
import type { Series } from "./TimeChart";

interface HeatMapProps {
  label: string;
  times: number[];
  end: number;
  series: Series[];
  unit: string | null;
}

const ROW = 18;
const LABEL = 220;

export function HeatMap({ label, times, end, series, unit }: HeatMapProps) {
  const [box, width] = useWidth<HTMLDivElement>();
  const inner = Math.max(width - LABEL - 24, 10);
  const first = times[0] ?? 0;
  const x = (ms: number) => LABEL + ((ms - first) / Math.max(end - first, 1)) * inner;
  const most = Math.max(...series.flatMap((each) => each.values.map((value) => value ?? 0)), 1);
  const share = scaleSqrt([0, most], [0, 100]);
  const height = series.length * ROW + 20;
  return (
    <div class="chart heat" ref={box}>
      {width > 0 && (
        <svg height={height} role="img" aria-label={label}>
          {series.map((each, row) => (
            <g key={each.name} transform={`translate(0 ${row * ROW})`}>
              <text x={LABEL - 8} y={ROW / 2} dy="0.32em" text-anchor="end">
                {shortened(visible(each.name), 18, 14)}
              </text>
              {each.values.map((value, at) => {
                const from = x(times[at] ?? 0);
                const mixed = `color-mix(in srgb, var(--heat-1) ${share(value ?? 0).toFixed(0)}%, var(--heat-0))`;
                return (
                  <rect
                    key={times[at]}
                    x={from}
                    y={1}
                    width={Math.max(x(times[at + 1] ?? end) - from - 1, 1)}
                    height={ROW - 2}
                    style={{ fill: mixed }}
                    data-tip={`${each.name}\n${date(times[at] ?? 0)}: ${said(value, unit)}`}
                  />
                );
              })}
            </g>
          ))}
          {ticks(first, end, inner / 90).map((tick) => (
            <text key={tick.at} x={x(tick.at)} y={height - 5} text-anchor="middle">
              {tick.label}
            </text>
          ))}
        </svg>
      )}
    </div>
  );
}
