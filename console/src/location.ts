// Where one is: the page, and what is asked. All of it is in the URL, under names that stay:
//   ?page=map&from=-1h&to=now&filter=...&compare=-1d&<what a page adds>
// so a link says everything, and back and forward go through it.
import { computed, signal } from "@preact/signals";

export const PAGES = ["overview", "map", "flows", "explore", "policies", "nodes", "sql"] as const;
export type Page = (typeof PAGES)[number];

const BAR = ["from", "to", "filter", "compare"] as const; // carried from page to page
export const DEFAULT_FROM = "-15m";
export const DEFAULT_TO = "now";

const search = signal(window.location.search);
window.addEventListener("popstate", () => {
  search.value = window.location.search;
});

export const parameters = computed(() => new URLSearchParams(search.value));

export const page = computed<Page>(() => {
  const named = parameters.value.get("page");
  return PAGES.find((each) => each === named) ?? "overview";
});

/** The value of a parameter; the default where the URL has none. */
export function parameter(name: string, otherwise = ""): string {
  return parameters.value.get(name) ?? otherwise;
}

export type Changes = Record<string, string | null>;

function changed(from: URLSearchParams, changes: Changes): string {
  const next = new URLSearchParams(from);
  for (const [name, value] of Object.entries(changes)) {
    if (value === null || value === "") next.delete(name);
    else next.set(name, value);
  }
  const text = next.toString();
  // People read and paste these: what needs no escape in a query stays as it is.
  return text
    ? `?${text.replaceAll("%2F", "/").replaceAll("%3A", ":").replaceAll("%2C", ",")}`
    : "./";
}

/** Address of the place where one is with some parameters changed; null or "" takes one out. */
export function here(changes: Changes): string {
  return changed(parameters.value, changes);
}

/** Address of a page with what the bar says, and the page's own parameters. */
export function to(target: Page, changes: Changes = {}): string {
  const carried = new URLSearchParams();
  if (target !== "overview") carried.set("page", target);
  for (const name of BAR) {
    const value = parameters.value.get(name);
    if (value) carried.set(name, value);
  }
  return changed(carried, changes);
}

/** Go to an address of this console; with `replace` the one before is not kept for "back". */
export function go(address: string, replace = false): void {
  if (address === window.location.search || (address === "./" && !window.location.search)) return;
  const target = address === "./" ? window.location.pathname : address;
  if (replace) window.history.replaceState(null, "", target);
  else window.history.pushState(null, "", target);
  search.value = window.location.search;
}

/** Change some parameters of the place where one is. */
export function change(changes: Changes, replace = false): void {
  go(here(changes), replace);
}

/** For onClick of links: plain clicks stay in the page, others (new tab) are the browser's. */
export function follow(event: MouseEvent): void {
  const link = event.currentTarget;
  if (!(link instanceof HTMLAnchorElement) || event.button || event.metaKey || event.ctrlKey)
    return;
  if (event.shiftKey || event.altKey) return;
  event.preventDefault();
  go(link.getAttribute("href") ?? "./");
}
