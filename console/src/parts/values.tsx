// How names and numbers are shown, everywhere.
import type { Cell } from "../api";
import { exact, quantity, said } from "../quantities";
import { ends, visible } from "../texts";

const TAIL = 7;
/** Letters that are written from right to left: of a name with some, two parts would change places. */
const LEFTWARDS = /[\u0590-\u08ff\ufb1d-\ufdff\ufe70-\ufefc]/;

/** A name; where there is no room it is shortened in the middle, the whole is in the tooltip. */
export function Name({ text, none = "none" }: { text: Cell | undefined; none?: string }) {
  const whole = text === null || text === undefined ? "" : visible(String(text));
  if (!whole) return <span class="faint">{none}</span>;
  if (whole.length <= TAIL * 2 || LEFTWARDS.test(whole)) {
    return (
      <span class="name" data-tip={whole}>
        <span class="name-tail">{whole}</span>
      </span>
    );
  }
  const [head, tail] = ends(whole, -TAIL, TAIL);
  return (
    <span class="name" data-tip={whole}>
      <span class="unseen">{whole}</span>
      <span class="name-head" aria-hidden="true">
        {head}
      </span>
      <span class="name-tail" aria-hidden="true">
        {tail}
      </span>
    </span>
  );
}

interface NumberProps {
  value: number | null | undefined;
  unit?: string | null;
  /** Nothing is drawn faint, so that what is there stands out. */
  quiet?: boolean;
}

/** A number with its unit; the exact one in the tooltip, and for scripts in data-value. */
export function Num({ value, unit = "", quiet = true }: NumberProps) {
  const { number, unit: written } = quantity(value, unit);
  return (
    <span
      class={quiet && !value ? "num faint" : "num"}
      data-tip={exact(value, unit)}
      data-value={value ?? ""}
    >
      {number}
      {written && <span class="unit">{`\u202f${written}`}</span>}
    </span>
  );
}

/** now against before: "+12 %", new (before is null); undefined: it was not asked. */
export function Change({ now, before }: { now: number; before: number | null | undefined }) {
  if (before === undefined) return <span class="faint">–</span>;
  if (before === null || (before === 0 && now > 0)) {
    return <span class="tag tag-new">new</span>;
  }
  if (before === 0) return <span class="faint">–</span>;
  const change = ((now - before) / before) * 100;
  const sign = change > 0 ? "+" : change < 0 ? "−" : "±";
  const size = Math.abs(change);
  const text = size >= 1000 ? `×${said(now / before)}` : `${sign}${size.toFixed(0)}`;
  return (
    <span class={size < 5 ? "num faint" : "num"} data-tip={`before: ${exact(before)}`}>
      {text}
      {size < 1000 && <span class="unit">{"\u202f%"}</span>}
    </span>
  );
}
