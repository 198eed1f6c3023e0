// Light or dark: as the system is, unless a person chose.
import { effect, signal } from "@preact/signals";

type Theme = "light" | "dark";
const KEY = "flowvis-theme";
const system = window.matchMedia("(prefers-color-scheme: dark)");

function kept(): Theme | null {
  try {
    const value = window.localStorage.getItem(KEY);
    return value === "light" || value === "dark" ? value : null;
  } catch {
    return null; // a browser that keeps nothing
  }
}

export const theme = signal<Theme>(kept() ?? (system.matches ? "dark" : "light"));
system.addEventListener("change", () => {
  if (!kept()) theme.value = system.matches ? "dark" : "light";
});
effect(() => {
  document.documentElement.dataset.theme = theme.value;
});

export function turnTheme(): void {
  theme.value = theme.value === "dark" ? "light" : "dark";
  try {
    window.localStorage.setItem(KEY, theme.value);
  } catch {
    // It is this page's only, then.
  }
}

/** The colour that a token of the style sheet has now, for what is drawn on a canvas. */
export function colour(token: string): string {
  return getComputedStyle(document.documentElement).getPropertyValue(`--${token}`).trim();
}
