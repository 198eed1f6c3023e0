import { defineConfig } from "vite";

// Into the Python package: what the aggregator serves at /. Everything is a file of its own, as
// the Content-Security-Policy knows no inline script, style or data: address.
export default defineConfig({
  base: "./",
  build: {
    outDir: "../src/flowvis/console",
    emptyOutDir: true,
    target: "es2022",
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
    reportCompressedSize: false,
  },
  worker: { format: "es" },
});
