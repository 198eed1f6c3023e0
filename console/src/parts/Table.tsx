// A table of rows. Above a few hundred rows only those in view are in the page.
import type { ComponentChildren, TargetedKeyboardEvent } from "preact";
import { useEffect, useLayoutEffect, useRef, useState } from "preact/hooks";

export interface TableColumn<Row> {
  key: string;
  title: ComponentChildren;
  tip?: string;
  /** Numbers are at the right. */
  numeric?: boolean;
  width?: string;
  cell: (row: Row, index: number) => ComponentChildren;
  /** What to sort by when the head is clicked. */
  order?: (row: Row) => number | string;
}

interface TableProps<Row> {
  label: string;
  columns: TableColumn<Row>[];
  rows: Row[];
  id: (row: Row, index: number) => string;
  onOpen?: (row: Row, index: number) => void;
  opened?: string | null;
  /** Scrolls inside of its place, with the head staying; else it is as high as its rows. */
  scrolls?: boolean;
  mark?: (row: Row) => string;
  onEnd?: () => void;
}

const ROW = 28;
const MANY = 200;
const BEYOND = 12;
const DRAGGED = 4; // px, beyond which a click is the end of a drag

export function Table<Row>(props: TableProps<Row>) {
  const { columns, label, scrolls = false } = props;
  const [sorted, sort] = useState<{ key: string; down: boolean } | null>(null);
  const box = useRef<HTMLDivElement>(null);
  const [view, look] = useState({ top: 0, height: 800 });
  const by = sorted && columns.find((each) => each.key === sorted.key)?.order;
  const rows = by ? ordered(props.rows, by, sorted.down) : props.rows;
  const windowed = scrolls && rows.length > MANY;
  const first = windowed ? Math.max(Math.floor(view.top / ROW) - BEYOND, 0) : 0;
  const count = Math.ceil(view.height / ROW) + BEYOND * 2;
  const last = windowed ? Math.min(first + count, rows.length) : rows.length;

  useLayoutEffect(() => {
    const element = box.current;
    if (!element) return;
    const measure = () => look({ top: element.scrollTop, height: element.clientHeight });
    measure();
    const observer = new ResizeObserver(measure);
    observer.observe(element);
    return () => observer.disconnect();
  }, [windowed]); // while all rows are in the page nobody looks where they are

  const scroll = () => {
    const element = box.current;
    if (!element) return;
    if (windowed) look({ top: element.scrollTop, height: element.clientHeight });
    reach(element);
  };
  const reach = (element: HTMLDivElement) => {
    const left = element.scrollHeight - element.scrollTop - element.clientHeight;
    if (left < ROW * 20) props.onEnd?.();
  };
  // Rows may have become so few that what is in view is their end, and nobody scrolls.
  useEffect(() => {
    if (props.onEnd && box.current) reach(box.current);
  });
  // Numbers begin with the largest, names with the first.
  const turn = (key: string) => {
    const [row] = props.rows;
    const order = columns.find((each) => each.key === key)?.order;
    const down = row !== undefined && typeof order?.(row) === "number";
    sort((old) =>
      old?.key !== key ? { key, down } : old.down === down ? { key, down: !down } : null,
    );
  };

  return (
    <div
      class={scrolls ? "table-box scrolls" : "table-box"}
      ref={box}
      onScroll={scroll}
      // A place that scrolls can be reached by keyboard.
      tabIndex={scrolls ? 0 : undefined}
      {...(scrolls ? { role: "region", "aria-label": label } : {})}
    >
      <table aria-label={label} aria-rowcount={rows.length + 1}>
        <thead>
          <tr>
            {columns.map((column) => (
              <Head
                key={column.key}
                column={column}
                down={sorted?.key === column.key ? sorted.down : null}
                onSort={() => turn(column.key)}
              />
            ))}
          </tr>
        </thead>
        <tbody>
          {first > 0 && <Gap rows={first} columns={columns.length} />}
          {rows.slice(first, last).map((row, offset) => (
            <Row key={props.id(row, first + offset)} row={row} index={first + offset} {...props} />
          ))}
          {last < rows.length && <Gap rows={rows.length - last} columns={columns.length} />}
        </tbody>
      </table>
    </div>
  );
}

function ordered<Row>(rows: Row[], by: (row: Row) => number | string, down: boolean): Row[] {
  const sign = down ? -1 : 1;
  return [...rows].sort((left, right) => {
    const [a, b] = [by(left), by(right)];
    if (typeof a === "number" && typeof b === "number") return (a - b) * sign;
    return String(a).localeCompare(String(b), "en", { numeric: true }) * sign;
  });
}

function Gap({ rows, columns }: { rows: number; columns: number }) {
  return (
    <tr>
      <td colSpan={columns} style={{ height: `${rows * ROW}px`, padding: 0 }} />
    </tr>
  );
}

interface HeadProps<Row> {
  column: TableColumn<Row>;
  down: boolean | null;
  onSort: () => void;
}

function Head<Row>({ column, down, onSort }: HeadProps<Row>) {
  const order = down === null ? "none" : down ? "descending" : "ascending";
  return (
    <th
      class={column.numeric ? "numeric" : undefined}
      scope="col"
      aria-sort={column.order ? order : undefined}
      style={column.width ? { width: column.width } : undefined}
    >
      {column.order ? (
        <button type="button" class="head" onClick={onSort} data-tip={column.tip}>
          {column.title}
          <span class="arrow" aria-hidden="true">
            {down === null ? "" : down ? "▾" : "▴"}
          </span>
        </button>
      ) : (
        <span data-tip={column.tip}>{column.title}</span>
      )}
    </th>
  );
}

/** Whether a part of a row is marked, to be copied. */
function marks(row: HTMLElement): boolean {
  const marked = document.getSelection();
  return marked?.isCollapsed === false && marked.containsNode(row, true);
}

function Row<Row>({
  row,
  index,
  columns,
  onOpen,
  opened,
  id,
  mark,
}: TableProps<Row> & { row: Row; index: number }) {
  const pressed = useRef(0);
  const open = onOpen && (() => onOpen(row, index));
  const press = (event: TargetedKeyboardEvent<HTMLTableRowElement>) => {
    if (event.target !== event.currentTarget) return;
    if (event.key === "Enter" || event.key === " ") {
      event.preventDefault();
      open?.();
    } else if (event.key === "ArrowDown" || event.key === "ArrowUp") {
      const next =
        event.key === "ArrowDown"
          ? event.currentTarget.nextElementSibling
          : event.currentTarget.previousElementSibling;
      if (next instanceof HTMLElement && next.tabIndex >= 0) {
        event.preventDefault();
        next.focus();
      }
    }
  };
  const names = [open && "opens", opened === id(row, index) && "opened", mark?.(row)];
  return (
    <tr
      class={names.filter(Boolean).join(" ") || undefined}
      aria-rowindex={index + 2}
      tabIndex={open ? 0 : undefined}
      onPointerDown={(event) => {
        pressed.current = event.clientX;
      }}
      onClick={(event) => {
        const dragged = Math.abs(event.clientX - pressed.current) > DRAGGED;
        if (!dragged || !marks(event.currentTarget)) open?.();
      }}
      onKeyDown={open && press}
    >
      {columns.map((column) => (
        <td key={column.key} class={column.numeric ? "numeric" : undefined}>
          {column.cell(row, index)}
        </td>
      ))}
    </tr>
  );
}
