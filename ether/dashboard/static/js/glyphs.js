// A state is a shape, a word and a colour, in this order of trust; in grey nothing is lost.

import { h, s } from "./dom.js";

const fill = { fill: "currentColor" }, line = { fill: "none", stroke: "currentColor", "stroke-width": "1.8" };
const disc = () => s("circle", { cx: 7, cy: 7, r: 4.6, ...fill });
const half = () => [s("circle", { cx: 7, cy: 7, r: 4.9, ...line }), s("path", { d: "M7 2.1a4.9 4.9 0 0 1 0 9.8z", ...fill })];
const ring = () => s("circle", { cx: 7, cy: 7, r: 4.9, ...line, "stroke-dasharray": "3 2" });
const diamond = () => s("path", { d: "M7 1.2 12.8 7 7 12.8 1.2 7zM4.4 7h5.2", ...line, "stroke-linejoin": "round" });
const bars = () => [s("rect", { x: 1.8, y: 1.8, width: 10.4, height: 10.4, rx: 2, ...fill }), s("path", { d: "M5.3 4.6v4.8M8.7 4.6v4.8", fill: "none", stroke: "var(--panel)", "stroke-width": "1.7" })];
const mark = () => [s("path", { d: "M7 1 13.4 12.6H.6z", ...fill }), s("path", { d: "M7 5v3.4M7 9.9v1.1", fill: "none", stroke: "var(--panel)", "stroke-width": "1.6" })];
const cross = () => s("path", { d: "m2.6 2.6 8.8 8.8m0-8.8-8.8 8.8", ...line, "stroke-width": "2.4", "stroke-linecap": "round" });
const tick = () => s("path", { d: "m1.8 7.6 3.6 3.6 6.8-8", ...line, "stroke-width": "2.2" });

const SHAPES = {
  ready: disc, well: disc, busy: half, running: half, starting: ring, restarting: ring, waiting: ring, offline: diamond,
  hung: bars, suspended: bars, paused: bars, safe: bars, failed: mark, error: mark, WARNING: mark, ERROR: mark, CRITICAL: mark,
  lost: cross, aborted: cross, interrupted: cross, disturbed: cross, done: tick, ended: tick, stopped: tick, left: tick,
};

export const shape = (state) => (SHAPES[state] || ring)();
export const glyph = (state) => h("span", { class: `gl ${state}`, "aria-hidden": "true" }, s("svg", { viewBox: "0 0 14 14" }, shape(state)));
export const state = (word, text = word) => h("span", { class: `st ${word}` }, glyph(word), text);

const ICONS = {
  overview: "M5 9.5a2 2 0 1 0 0 .1zM15 4.5a2 2 0 1 0 0 .1zM15 14.5a2 2 0 1 0 0 .1zM6.8 8.8l6.4-3.4M6.8 10.4l6.4 3.4",
  values: "M2 13h3l2-7 3 9 2.5-6 1.5 4h4", calls: "M3 4h14v9H9l-4 4v-4H3z",
  runs: "M3 4h4v4H3zM3 12h4v4H3zM10 5h7M10 7h5M10 13h7M10 15h5", record: "M4 5.5C4 4 7 3 10 3s6 1 6 2.5S13 8 10 8 4 7 4 5.5zM4 5.5v9C4 16 7 17 10 17s6-1 6-2.5v-9M4 10c0 1.500 3 2.500 6 2.500s6-1 6-2.500",
  logs: "M3 5h14M3 10h10M3 15h12", lab: "M8 3h4M9 3v5l-4.500 8h11L11 8V3",
};
export const icon = (name) => s("svg", { viewBox: "0 0 20 20", "aria-hidden": "true", class: "ic" }, s("path", { d: ICONS[name], fill: "none", stroke: "currentColor", "stroke-width": "1.600", "stroke-linejoin": "round", "stroke-linecap": "round" }));
