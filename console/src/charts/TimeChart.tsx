// Values over time: stacked areas, lines or bars; a drag over them zooms into a range.
import { scaleLinear } from "d3-scale";
import { area, line } from "d3-shape";
import { useRef, useState } from "preact/hooks";
import { round, said } from "../quantities";
import { visible } from "../texts";
import { clock, date, ticks } from "../times";
import { useWidth } from "./size";

export interface Series {
  name: string;
  /** Token of its colour. */
  colour: string;
  values: (number | null)[];
}

export interface TimeChartProps {
  label: string;
  times: number[];
  /** Where the last interval ends. */
  end: number;
  series: Series[];
  kind?: "stacked" | "lines" | "bars";
  unit?: string | null;
  height?: number;
  /** The same before: one dashed line. */
  before?: (number | null)[] | null;
  onZoom?: (from: number, to: number) => void;
}

const LEFT = 64;
const BOTTOM = 20;
const TOP = 6;
const TIP_ROWS = 12;

interface Layer extends Series {
  low: number[];
  high: number[];
}

function layers(series: Series[], stacked: boolean): Layer[] {
  const sum: number[] = [];
  return series.map((each) => {
    const low = each.values.map((_, at) => (stacked ? (sum[at] ?? 0) : 0));
    const high = each.values.map((value, at) => (value ?? 0) + (low[at] ?? 0));
    high.forEach((value, at) => {
      sum[at] = value;
    });
    return { ...each, low, high };
  });
}

export function TimeChart(props: TimeChartProps) {
  const { times, end, kind = "stacked", unit = "", height = 180, before = null } = props;
  const [box, width] = useWidth<HTMLDivElement>();
  const [pointed, point] = useState<number | null>(null);
  const [drag, pull] = useState<[number, number] | null>(null);
  const svg = useRef<SVGSVGElement>(null);
  const at = pointed !== null && pointed < times.length ? pointed : null;
  const stacked = kind !== "lines";
  const drawn = layers(props.series, stacked);
  const first = times[0] ?? 0;
  const inner = Math.max(width - LEFT - 24, 10);
  const x = scaleLinear([first, Math.max(end, first + 1)], [LEFT, LEFT + inner]);
  const top = Math.max(
    ...drawn.flatMap((each) => each.high),
    ...(before ?? []).map((value) => value ?? 0),
    0,
  );
  const y = scaleLinear([0, top || 1], [height - BOTTOM, TOP]).nice(3);
  const middle = (index: number) => {
    const from = times[index] ?? 0;
    return x((from + (times[index + 1] ?? end)) / 2);
  };
  const time = (event: MouseEvent) => {
    const left = svg.current?.getBoundingClientRect().left ?? 0;
    return Math.min(Math.max(x.invert(event.clientX - left), first), end);
  };
  const index = (ms: number) => {
    const next = times.findIndex((each) => each > ms);
    return next < 0 ? times.length - 1 : Math.max(next - 1, 0);
  };
  const finish = () => {
    if (drag && Math.abs(x(drag[0]) - x(drag[1])) > 4) {
      props.onZoom?.(Math.min(...drag), Math.max(...drag));
    }
    pull(null);
  };

  return (
    <div class="chart" ref={box}>
      {width > 0 && (
        <svg ref={svg} height={height} role="img" aria-label={props.label}>
          {y.ticks(3).map((value) => (
            <g key={value}>
              <line class="grid" x1={LEFT} x2={LEFT + inner} y1={y(value)} y2={y(value)} />
              <text x={LEFT - 8} y={y(value)} dy="0.32em" text-anchor="end">
                {round(value, unit)}
              </text>
            </g>
          ))}
          <line
            class="axis"
            x1={LEFT}
            x2={LEFT + inner}
            y1={height - BOTTOM}
            y2={height - BOTTOM}
          />
          {ticks(first, end, inner / 90).map((tick) => (
            <text
              key={tick.at}
              x={Math.min(x(tick.at), LEFT + inner - 14)}
              y={height - 4}
              text-anchor="middle"
            >
              {tick.label}
            </text>
          ))}
          {drawn.map((each) => (
            <Shape key={each.name} layer={each} kind={kind} {...{ x, y, middle, times, end }} />
          ))}
          {before && (
            <path
              class="before"
              d={
                line<number | null>()
                  .defined((value) => value !== null)
                  .x((_, i) => middle(i))
                  .y((value) => y(value ?? 0))(before) ?? ""
              }
            />
          )}
          {drag && (
            <rect
              class="brush"
              x={x(Math.min(...drag))}
              width={Math.abs(x(drag[1]) - x(drag[0]))}
              y={TOP}
              height={height - TOP - BOTTOM}
            />
          )}
          {at !== null && (
            <line class="cross" x1={middle(at)} x2={middle(at)} y1={TOP} y2={height - BOTTOM} />
          )}
          <rect
            class="plot"
            x={LEFT}
            y={0}
            width={inner}
            height={height - BOTTOM}
            fill="transparent"
            onPointerMove={(event) => {
              point(index(time(event)));
              if (drag) pull([drag[0], time(event)]);
            }}
            onPointerLeave={() => point(null)}
            onPointerDown={(event) => {
              if (!props.onZoom || event.button) return;
              event.currentTarget.setPointerCapture(event.pointerId);
              pull([time(event), time(event)]);
            }}
            onPointerUp={finish}
            onPointerCancel={() => pull(null)}
          />
        </svg>
      )}
      {at !== null && times.length > 0 && (
        <Tip
          {...{ at, times, end, unit, before }}
          series={props.series}
          left={middle(at) > width / 2 ? null : middle(at) + 12}
          right={middle(at) > width / 2 ? width - middle(at) + 12 : null}
        />
      )}
    </div>
  );
}

interface ShapeProps {
  layer: Layer;
  kind: string;
  times: number[];
  end: number;
  x: (value: number) => number;
  y: (value: number) => number;
  middle: (index: number) => number;
}

function Shape({ layer, kind, times, end, x, y, middle }: ShapeProps) {
  const paint = `var(--${layer.colour})`;
  // An area is from one interval to the next: of a single one it is its bar.
  if (kind === "bars" || (kind === "stacked" && times.length === 1)) {
    return (
      <g style={{ fill: paint }}>
        {layer.high.map((high, i) => {
          const from = x(times[i] ?? 0);
          const wide = Math.max(x(times[i + 1] ?? end) - from - 1, 1);
          const low = layer.low[i] ?? 0;
          if (high <= low) return null;
          return (
            <rect key={times[i]} x={from} width={wide} y={y(high)} height={y(low) - y(high)} />
          );
        })}
      </g>
    );
  }
  if (kind === "lines") {
    const [only] = layer.values;
    const path =
      times.length === 1
        ? `M${x(times[0] ?? 0)},${y(only ?? 0)}H${x(end)}`
        : line<number | null>()
            .defined((value) => value !== null)
            .x((_, i) => middle(i))
            .y((value) => y(value ?? 0))(layer.values);
    // What has no neighbour is a dot, which only a round end draws.
    return (
      <path
        d={path ?? ""}
        style={{ stroke: paint }}
        fill="none"
        stroke-width="1.5"
        stroke-linecap="round"
      />
    );
  }
  const path = area<number>()
    .x((_, i) => middle(i))
    .y0((_, i) => y(layer.low[i] ?? 0))
    .y1((value) => y(value))(layer.high);
  return <path d={path ?? ""} style={{ fill: paint }} fill-opacity="0.85" />;
}

interface TipProps {
  at: number;
  times: number[];
  end: number;
  unit: string | null;
  series: Series[];
  before: (number | null)[] | null;
  left: number | null;
  right: number | null;
}

function Tip({ at, times, end, unit, series, before, left, right }: TipProps) {
  const values = series
    .map((each) => ({ ...each, value: each.values[at] ?? null }))
    .filter((each) => each.value)
    .sort((a, b) => (b.value ?? 0) - (a.value ?? 0));
  const style =
    left === null ? { right: `${right}px`, left: "auto" } : { left: `${left}px`, right: "auto" };
  return (
    <div class="chart-tip" style={style}>
      <div class="faint">
        {date(times[at] ?? 0)} – {clock(times[at + 1] ?? end)}
      </div>
      <ul>
        {values.slice(0, TIP_ROWS).map((each) => (
          <li key={each.name}>
            <Swatch colour={each.colour} />
            <span class="name-head">{visible(each.name)}</span>
            <span class="num">{said(each.value, unit)}</span>
          </li>
        ))}
        {values.length === 0 && (
          <li>
            <span />
            <span class="faint">nothing</span>
            <span />
          </li>
        )}
        {before && (
          <li>
            <span />
            <span class="faint">all, before</span>
            <span class="num">{said(before[at] ?? null, unit)}</span>
          </li>
        )}
      </ul>
      {values.length > TIP_ROWS && <div class="faint">and {values.length - TIP_ROWS} more</div>}
    </div>
  );
}

export function Swatch({ colour }: { colour: string }) {
  return <i class="swatch" style={{ background: `var(--${colour})` }} aria-hidden="true" />;
}

export function Legend({ series }: { series: Series[] }) {
  return (
    <ul class="legend">
      {series.map((each) => (
        <li key={each.name}>
          <Swatch colour={each.colour} />
          {visible(each.name)}
        </li>
      ))}
    </ul>
  );
}
