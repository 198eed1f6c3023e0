// A button that opens a small panel under it; Escape and clicks elsewhere close it.
import type { ComponentChildren } from "preact";
import { useEffect, useRef, useState } from "preact/hooks";

interface MenuProps {
  label: ComponentChildren;
  /** Said before the label, which shows a value. */
  name?: string;
  class?: string;
  right?: boolean;
  children: (close: () => void) => ComponentChildren;
}

export function Menu({
  label,
  name = "",
  class: className = "",
  right = false,
  children,
}: MenuProps) {
  const [open, set] = useState(false);
  const box = useRef<HTMLDivElement>(null);
  const button = useRef<HTMLButtonElement>(null);
  useEffect(() => {
    if (!open) return;
    const elsewhere = (event: Event) => {
      if (event.target instanceof Node && !box.current?.contains(event.target)) set(false);
    };
    const leave = (event: KeyboardEvent) => {
      if (event.key === "Escape") close();
    };
    document.addEventListener("pointerdown", elsewhere);
    document.addEventListener("keydown", leave);
    return () => {
      document.removeEventListener("pointerdown", elsewhere);
      document.removeEventListener("keydown", leave);
    };
  }, [open]);
  const close = () => {
    set(false);
    button.current?.focus(); // what was chosen is gone with the menu
  };
  return (
    <div class={`menu ${className}`} ref={box}>
      <button type="button" ref={button} aria-expanded={open} onClick={() => set(!open)}>
        {name && <span class="unseen">{name} </span>}
        {label}
      </button>
      {open && <div class={right ? "menu-body right" : "menu-body"}>{children(close)}</div>}
    </div>
  );
}
