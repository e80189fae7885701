import { defineConfig } from "vite";

// The page goes into the `api` package, whose wheel brings it along. Nothing is inlined: the
// Content-Security-Policy of api/page.py allows scripts, styles and pictures of the server alone.
export default defineConfig({
  build: {
    outDir: "../api/static",
    emptyOutDir: true,
    target: ["chrome123", "firefox120", "safari17.5"],
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
  },
  // `npm run dev` beside a service that runs already.
  server: { proxy: { "/v1": "http://127.0.0.1:8000" } },
});
