import type { RefObject } from "preact";
import { useLayoutEffect, useRef, useState } from "preact/hooks";

/** The width of an element, as it changes. */
export function useWidth<E extends HTMLElement>(): [RefObject<E | null>, number] {
  const element = useRef<E>(null);
  const [width, set] = useState(0);
  useLayoutEffect(() => {
    const target = element.current;
    if (!target) return;
    set(target.clientWidth);
    const observer = new ResizeObserver(() => set(target.clientWidth));
    observer.observe(target);
    return () => observer.disconnect();
  }, []);
  return [element, width];
}
