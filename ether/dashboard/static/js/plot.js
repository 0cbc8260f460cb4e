// A plot of several numbers over the last while. Live until somebody pauses or zooms: then the picture is held, and what
// comes is still kept.

import uPlot from "../vendor/uplot/uPlot.esm.js";
import { h } from "./dom.js";
import { clock, number } from "./format.js";
import { changed, lab, now, on } from "./store.js";
import { choose, chosen } from "./nav.js";
import { stale } from "./model.js";
import { css } from "./spark.js";
import { SIGNALS, nameOf, topicOf, untick, valueOf } from "./values.js";

const WINDOWS = [10, 60, 600];
const DRAW_MS = 80;
let held = null, plot = null, drawnAt = 0, root = null, shape = "";

export const windowS = () => Number(chosen("w", "60")) || 60;
export const isHeld = () => held !== null;
export function pause() {
  held = held ? null : [now() - windowS(), now()];
  draw(true);
  changed();
}
export function fitAll() { held = null; draw(true); changed(); }

export function zoom(by, move = 0) {
  const [a, b] = held || [now() - windowS(), now()], middle = (a + b) / 2 + move * (b - a), half = ((b - a) / 2) * by;
  held = [middle - half, Math.min(now(), middle + half)];
  draw(true);
  changed();
}

export function plotPanel(keys) {
  const log = chosen("log") === "1";
  return h("section", { class: "panel live", "aria-label": "Plot" }, h("div", { class: "ph" }, h("span", { class: `st ${held ? "paused" : stale() ? "off" : "ready"}` }, held ? "Held" : stale() ? "No connection" : "Live"), h("button", { class: "btn", onclick: pause, "aria-pressed": String(Boolean(held)) }, held ? "Go live" : "Pause"),
    h("span", { class: "seg", role: "group", "aria-label": "Window" }, WINDOWS.map((w) => h("button", { key: w, "aria-pressed": String(windowS() === w), onclick: () => { held = null; choose({ w }); } }, w < 60 ? `${w} s` : `${w / 60} min`))),
    h("button", { class: "btn", "aria-pressed": String(log), onclick: () => choose({ log: log ? "" : "1" }) }, "log"), h("button", { class: "btn", onclick: fitAll }, "Fit"), h("span", { class: "sp" }), h("span", { class: "note hide-s" }, held ? "recording goes on" : "drag to zoom, double-click to fit")),
    h("div", { class: "leg" }, keys.map((key, i) => h("span", { key, class: "lgd" }, h("i", { class: i % 2 ? "d" : "", style: { "border-color": `var(${SIGNALS[i % 4]})` } }), nameOf(key), " ", h("b", {}, valueOf(key) === undefined ? "—" : number(valueOf(key))), h("span", { class: "dim" }, sideOf(keys, key) === "right" ? " · right" : keys.some((each) => sideOf(keys, each) === "right") ? " · left" : ""), h("button", { class: "x", "aria-label": `Take ${nameOf(key)} off the plot`, onclick: () => untick(key) }, "×"))), !keys.length && h("span", { class: "dim" }, "Tick a number in the list.")),
    h("div", { class: "plot", tabindex: 0, role: "img", "aria-label": `Plot of ${keys.map(nameOf).join(", ") || "nothing"}. Space pauses, + and − zoom, arrows move.`, "data-keys": keys.join("\x1e"), "data-log": log ? "1" : "", mount: attach }));
}

const sideOf = (keys, key) => (topicOf(key) === topicOf(keys[0]) ? "left" : "right");

function attach(el) {
  root = el;
  const stop = [on("plots", () => draw()), on("rows", () => draw())];
  const size = new ResizeObserver(() => { shape = ""; draw(true); });
  size.observe(el);
  draw(true);
  return () => { stop.forEach((each) => each()); size.disconnect(); plot?.destroy(); plot = root = null; shape = ""; };
}

function draw(at_once = false) {
  if (!root || (!at_once && Date.now() - drawnAt < DRAW_MS)) return;
  drawnAt = Date.now();
  const keys = root.dataset.keys.split("\x1e").filter(Boolean), log = root.dataset.log === "1";
  const width = root.clientWidth, tall = root.clientHeight, wanted = [keys, log, width, tall, document.documentElement.dataset.theme].join();
  if (!width || !tall) return;
  if (wanted !== shape) {
    plot?.destroy();
    plot = keys.length ? new uPlot(options(keys, log, width, tall), [[]], root) : null;
    shape = wanted;
  }
  if (!plot) return;
  const [from, to] = held || [(stale() && lab.lostAt ? lab.lostAt : now()) - windowS(), stale() && lab.lostAt ? lab.lostAt : now()];
  plot.batch(() => {
    plot.setData(joined(keys, log, from, to), false);
    plot.setScale("x", { min: from, max: to });
    for (const side of ["left", "right"]) rescale(side, log);
  });
}

function joined(keys, log, from, to) {
  const tables = keys.map((key) => {
    const known = lab.plots.get(key) || { t: [], v: [] };
    let a = lower(known.t, from), b = lower(known.t, to) + 1;
    a = Math.max(0, a - 1);
    const v = known.v.slice(a, b);
    return [known.t.slice(a, b), log ? v.map((each) => (each !== null && each > 0 ? each : null)) : v];
  });
  return tables.length === 1 ? tables[0] : uPlot.join(tables);
}

function lower(times, wanted) {
  let a = 0, b = times.length;
  while (a < b) { const m = (a + b) >> 1; times[m] < wanted ? (a = m + 1) : (b = m); }
  return a;
}

function rescale(side, log) {
  let low = Infinity, high = -Infinity;
  plot.series.forEach((one, i) => {
    if (i && one.scale === side) for (const v of plot.data[i]) if (v !== null && v !== undefined) { if (v < low) low = v; if (v > high) high = v; }
  });
  if (low > high) [low, high] = log ? [1, 10] : [0, 1];
  const pad = (high - low || Math.abs(high) * 0.1 || 1) * 0.08;
  if (plot.scales[side]) plot.setScale(side, log ? { min: low / 1.3, max: high * 1.3 } : { min: low - pad, max: high + pad });
}

function options(keys, log, width, height) {
  const ink = css("--dim"), grid = { stroke: css("--line"), width: 1 }, font = `12px ${css("--sans")}`;
  const right = keys.some((key) => sideOf(keys, key) === "right"), many = keys.length > 1;
  const axis = (side) => ({ scale: side, side: side === "right" ? 1 : 3, stroke: many && right ? css(SIGNALS[side === "left" ? 0 : keys.findIndex((key) => sideOf(keys, key) === "right") % 4]) : ink, font, grid: side === "left" ? grid : { show: false }, ticks: { show: false }, size: 62, values: (_, all) => all.map((v) => (v === null ? "" : number(Number(v.toPrecision(6))))) });
  const y = () => ({ auto: false, distr: log ? 3 : 1 });
  return {
    width, height, pxAlign: 0, legend: { show: false },
    cursor: { drag: { x: true, y: false, setScale: false }, points: { size: 6 } },
    scales: { x: { time: true, auto: false }, left: y(), ...(right ? { right: y() } : {}) },
    axes: [{ stroke: ink, font, grid, ticks: { show: false }, space: 90, values: (_, all) => all.map((v) => clock(v)) }, axis("left"), ...(right ? [axis("right")] : [])],
    series: [{}, ...keys.map((key, i) => ({ label: nameOf(key), scale: sideOf(keys, key), stroke: css(SIGNALS[i % 4]), width: 1.600, dash: i % 2 ? [6, 4] : undefined, points: { show: false }, spanGaps: false }))],
    hooks: {
      setSelect: [(u) => { if (u.select.width > 4) { held = [u.posToVal(u.select.left, "x"), u.posToVal(u.select.left + u.select.width, "x")]; u.setSelect({ left: 0, top: 0, width: 0, height: 0 }, false); draw(true); changed(); } }],
      ready: [(u) => u.over.addEventListener("dblclick", fitAll)],
    },
  };
}
