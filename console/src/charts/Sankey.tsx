// What flows from the groups of one dimension to those of the next.
import { type SankeyNode, sankey, sankeyLinkHorizontal } from "d3-sankey";
import type { Cell } from "../api";
import { said } from "../quantities";
import { visible } from "../texts";
import { token } from "./palette";
import { useWidth } from "./size";

interface SankeyProps {
  label: string;
  dimensions: string[];
  /** Rows of the dimensions' values, and the measure's value last. */
  rows: { values: Cell[]; size: number }[];
  unit: string | null;
}

interface Group {
  id: string;
  name: string;
}

interface Link {
  source: string;
  target: string;
  value: number;
}

const SPACE = "\u0000";

function made(rows: SankeyProps["rows"]): { nodes: Group[]; links: Link[] } {
  const nodes = new Map<string, Group>();
  const links = new Map<string, Link>();
  const node = (column: number, value: Cell | undefined) => {
    const name = value === "" || value === null || value === undefined ? "none" : String(value);
    const id = `${column}${SPACE}${name}`;
    if (!nodes.has(id)) nodes.set(id, { id, name });
    return id;
  };
  for (const { values, size } of rows) {
    if (size <= 0) continue;
    for (let column = 0; column + 1 < values.length; column += 1) {
      const source = node(column, values[column]);
      const target = node(column + 1, values[column + 1]);
      const key = `${source}${SPACE}${target}`;
      const link = links.get(key) ?? { source, target, value: 0 };
      link.value += size;
      links.set(key, link);
    }
  }
  return { nodes: [...nodes.values()], links: [...links.values()] };
}

const LINE = 12; // px

/** Those whose names have room: of two that would lie on each other, the larger. */
function labelled(nodes: SankeyNode<Group, Link>[]): Set<string> {
  const taken: { x: number; y: number }[] = [];
  const found = new Set<string>();
  for (const each of [...nodes].sort((a, b) => (b.value ?? 0) - (a.value ?? 0))) {
    const place = { x: each.x0 ?? 0, y: ((each.y0 ?? 0) + (each.y1 ?? 0)) / 2 };
    if (taken.some(({ x, y }) => x === place.x && Math.abs(y - place.y) < LINE)) continue;
    taken.push(place);
    found.add(each.id);
  }
  return found;
}

export function Sankey({ label, dimensions, rows, unit }: SankeyProps) {
  const [box, width] = useWidth<HTMLDivElement>();
  const { nodes, links } = made(rows);
  const column = Math.max(
    ...dimensions.map(
      (_, at) => nodes.filter((each) => each.id.startsWith(`${at}${SPACE}`)).length,
    ),
    1,
  );
  const height = Math.min(Math.max(column * 26, 160), 620);
  const margin = 8;
  const layout = sankey<Group, Link>()
    .nodeId((each) => each.id)
    .nodeWidth(8)
    .nodePadding(8)
    .extent([
      [margin, 22],
      [Math.max(width - 24 - margin, 100), height],
    ]);
  const graph = width > 0 && links.length > 0 ? layout({ nodes, links }) : null;
  const written = graph ? labelled(graph.nodes) : new Set<string>();
  const colours = new Map(
    nodes.filter((each) => each.id.startsWith("0")).map((each, at) => [each.id, token(at)]),
  );
  return (
    <div class="chart sankey" ref={box}>
      {graph && (
        <svg height={height + 8} role="img" aria-label={label}>
          {graph.links.map((link) => {
            const source = link.source as unknown as Group;
            const target = link.target as unknown as Group;
            return (
              <path
                key={source.id + SPACE + target.id}
                class="link"
                d={sankeyLinkHorizontal()(link) ?? ""}
                stroke-width={Math.max(link.width ?? 1, 1)}
                style={{ stroke: `var(--${colours.get(source.id) ?? "flow"})` }}
                data-tip={`${source.name} → ${target.name}: ${said(link.value, unit)}`}
              />
            );
          })}
          {graph.nodes.map((each) => {
            const { x0 = 0, x1 = 0, y0 = 0, y1 = 0 } = each;
            const right = x0 > width / 2;
            return (
              <g key={each.id}>
                <rect
                  x={x0}
                  y={y0}
                  width={x1 - x0}
                  height={Math.max(y1 - y0, 1)}
                  style={{ fill: `var(--${colours.get(each.id) ?? "flow"})` }}
                  data-tip={`${each.name}: ${said(each.value ?? 0, unit)}`}
                />
                {written.has(each.id) && (
                  <text
                    x={right ? x0 - 6 : x1 + 6}
                    y={(y0 + y1) / 2}
                    dy="0.32em"
                    text-anchor={right ? "end" : "start"}
                    class="group"
                  >
                    {visible(each.name)}
                  </text>
                )}
              </g>
            );
          })}
          {dimensions.map((name, at) => (
            <text
              key={name}
              y={12}
              x={margin + (at / Math.max(dimensions.length - 1, 1)) * (width - 24 - margin * 2)}
              text-anchor={at === 0 ? "start" : at === dimensions.length - 1 ? "end" : "middle"}
            >
              {name}
            </text>
          ))}
        </svg>
      )}
      {links.length === 0 && <p class="state">Nothing flows in this range.</p>}
    </div>
  );
}
