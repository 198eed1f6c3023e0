// Where the focus goes when what had it is gone from the page.
import { useEffect, useRef } from "preact/hooks";

/** For what opens beside a page: its end gives the focus back to where it was, if it had it. */
export function useOpener(): void {
  const opener = useRef(document.activeElement);
  useEffect(
    () => () => {
      setTimeout(() => {
        if (document.activeElement !== document.body) return;
        const before = opener.current;
        const there = before?.isConnected ? before : document.querySelector("main");
        if (there instanceof HTMLElement) there.focus();
      }, 0);
    },
    [],
  );
}
