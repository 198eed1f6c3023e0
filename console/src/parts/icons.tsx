// Icons of the navigation and of buttons: strokes on a grid of 16.
const PATHS = {
  overview: "M2 13V8m4 5V3m4 10V6m4 7v-3",
  map: "M4 4.5h8M4.5 4l7 8M12 5v6",
  flows: "M2 4h12M2 8h12M2 12h8",
  explore: "M2 12l4-5 3 3 5-7",
  policies: "M8 1.5l5.5 2v4.2c0 3.2-2.3 5.6-5.5 6.8-3.200-1.200-5.500-3.600-5.500-6.800V3.500z",
  nodes: "M2 3h12v4H2zM2 9h12v4H2zM4.500 5h.01M4.500 11h.01",
  sql: "M5 4L1.500 8 5 12m6-8l3.500 4L11 12M9 3L7 13",
  play: "M4 2.500v11l9-5.500z",
  pause: "M5 3v10M11 3v10",
  close: "M4 4l8 8m0-8l-8 8",
  back: "M10 3L5 8l5 5",
  forward: "M6 3l5 5-5 5",
  refresh: "M13 8a5 5 0 1 1-1.500-3.500M13 2v3h-3",
  sun: "M8 5a3 3 0 1 0 0 6 3 3 0 0 0 0-6zM8 1v1.500m0 11V15M1 8h1.500m11 0H15M3 3l1 1m8 8l1 1m0-10l-1 1m-8 8l-1 1",
  moon: "M13.500 9.500A6 6 0 0 1 6.500 2.500a6 6 0 1 0 7 7z",
  clock: "M8 2a6 6 0 1 0 0 12A6 6 0 0 0 8 2zm0 3v3l2 1.500",
  down: "M4 6l4 4 4-4",
} as const;

export type IconName = keyof typeof PATHS;

export function Icon({ name }: { name: IconName }) {
  return (
    <svg class="icon" viewBox="0 0 16 16" aria-hidden="true" focusable="false">
      {name === "map" && (
        <>
          <circle cx="3" cy="4" r="1.8" />
          <circle cx="13" cy="4" r="1.8" />
          <circle cx="12" cy="13" r="1.8" />
        </>
      )}
      <path d={PATHS[name]} />
    </svg>
  );
}
