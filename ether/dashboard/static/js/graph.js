// Who publishes to whom: machines as frames, instances in layers from left to right, topics beside their publishers.

import { h, s } from "./dom.js";
import { rate } from "./format.js";
import { glyph, shape } from "./glyphs.js";
import { doing, silentFor, stale } from "./model.js";
import { css } from "./spark.js";
import { table } from "./store.js";

const W = 178, H = 44, GAP = 168, ROW = 58, PAD = 16, HEAD = 34, PILL = 24, FRAME_GAP = 40;
const MOST_PILLS = 4;
const ruler = document.createElement("canvas").getContext("2d");
const widthOf = (text, font) => { ruler.font = `${font} ${css("--sans")}`; return ruler.measureText(text).width; };
let marked = "";

export const mark = (name, changed) => { marked = marked === name ? "" : name; changed(); };

function layersOf(names, edges) {
  const layer = new Map(names.map((name) => [name, 0]));
  for (let round = 0; round < names.length; round++) {
    let moved = false;
    for (const [from, , to] of edges) {
      if (!layer.has(from) || !layer.has(to) || from === to) continue;
      const next = layer.get(from) + 1;
      if (next > layer.get(to) && next < names.length) { layer.set(to, next); moved = true; }
    }
    if (!moved || round > 12) break;
  }
  return layer;
}

// The places of everything. Frames stand in columns by the mean layer of their instances; in a frame, its own layers.
function layout(nodes, edges, pillsOf) {
  const layer = layersOf(nodes.map((n) => n.name), edges);
  const frames = new Map();
  for (const node of nodes) {
    if (!frames.has(node.host)) frames.set(node.host, { host: node.host, nodes: [] });
    frames.get(node.host).nodes.push(node);
  }
  for (const frame of frames.values()) {
    frame.mean = frame.nodes.reduce((sum, n) => sum + layer.get(n.name), 0) / frame.nodes.length;
    const own = [...new Set(frame.nodes.map((n) => layer.get(n.name)))].sort((a, b) => a - b);
    frame.columns = own.map((each) => frame.nodes.filter((n) => layer.get(n.name) === each));
  }
  const order = [...frames.values()].sort((a, b) => a.mean - b.mean || a.host.localeCompare(b.host));
  const columns = [];
  for (const frame of order) {
    const last = columns[columns.length - 1];
    if (last && Math.abs(last[0].mean - frame.mean) < 0.6) last.push(frame);
    else columns.push([frame]);
  }
  const places = new Map();
  let x = 1, height = 0;
  for (const column of columns) {
    let y = 1, widest = 0;
    for (const frame of column) {
      const tall = frame.columns.map((nodes_) => nodes_.reduce((sum, n) => sum + slot(n), 0));
      frame.x = x;
      frame.y = y;
      frame.w = PAD * 2 + frame.columns.length * W + (frame.columns.length - 1) * GAP;
      frame.h = HEAD + Math.max(...tall) + 8;
      frame.columns.forEach((nodes_, i) => {
        let top = y + HEAD + (Math.max(...tall) - tall[i]) / 2;
        for (const node of nodes_) {
          places.set(node.name, { x: x + PAD + i * (W + GAP), y: top + (slot(node) - 14 - H) / 2, node });
          top += slot(node);
        }
      });
      y += frame.h + 14;
      widest = Math.max(widest, frame.w);
    }
    height = Math.max(height, y);
    const pills = column.some((frame) => frame.columns[frame.columns.length - 1].some((n) => pillsOf(n.name).length));
    x += widest + (pills ? GAP : FRAME_GAP);
  }
  return { frames: order, places, width: x + 1, height: height + 2 };

  function slot(node) { return Math.max(ROW, Math.min(MOST_PILLS + 1, pillsOf(node.name).length) * (PILL + 5) + 14); }
}

export function graph(nodes, changed) {
  const flow = table("graph").flow || { edges: [], unheard: [], unfed: [] };
  const known = new Set(nodes.map((n) => n.name));
  const edges = flow.edges.filter(([from, , to]) => known.has(from) && known.has(to));
  const topics = table("topics");
  const out = new Map();
  for (const [from, topic, to] of edges) put(from, topic, to);
  for (const [from, topic] of flow.unheard) if (known.has(from)) put(from, topic, null);
  const pillsOf = (name) => [...(out.get(name) || new Map()).entries()];
  const place = layout(nodes, edges, pillsOf);
  const near = marked ? neighbours(marked, edges) : null;
  const faded = (...names) => (near && !names.every((name) => near.has(name)) ? " faded" : "");
  return h("div", { class: "graph live" },
    s("svg", { class: "gsvg", viewBox: `0 0 ${Math.ceil(place.width)} ${Math.ceil(place.height)}`, role: "group", "aria-label": "Graph of instances and topics", style: { "max-width": `${Math.ceil(place.width * 1.25)}px` } },
      place.frames.map((frame) => s("g", { key: `frame ${frame.host}` },
        s("rect", { class: "fr", x: frame.x, y: frame.y, width: frame.w, height: frame.h, rx: 10 }),
        s("text", { x: frame.x + PAD, y: frame.y + 22, class: "fh" }, frame.host || "no machine named"))),
      pillsAndArrows(place, pillsOf, topics, faded),
      [...place.places.values()].map(({ x, y, node }) => nodeOf(node, x, y, faded(node.name), changed))),
    flowList(edges, topics));

  function put(from, topic, to) {
    if (!out.has(from)) out.set(from, new Map());
    const of = out.get(from);
    if (!of.has(topic)) of.set(topic, []);
    if (to) of.get(topic).push(to);
  }
}

function neighbours(name, edges) {
  const near = new Set([name]);
  for (const [from, , to] of edges) {
    if (from === name) near.add(to);
    if (to === name) near.add(from);
  }
  return near;
}

function pillsAndArrows(place, pillsOf, topics, faded) {
  const arrows = [], pills = [];
  for (const [name, from] of place.places) {
    const mine = pillsOf(name), shown = mine.slice(0, MOST_PILLS);
    shown.forEach(([topic, to], i) => {
      const all = shown.length + (mine.length > MOST_PILLS);
      const y = from.y + H / 2 + (i - (all - 1) / 2) * (PILL + 5);
      const row = topics[topic], quiet = row ? silentFor(row) : 0, dead = Boolean(quiet && row.was_hz > 0 && row.count > 3);
      const text = !row ? "no message yet" : stale() ? "—" : dead ? `0 Hz, was ${Number(row.was_hz.toPrecision(2))}` : rate(row.hz);
      const label = topic.length > 16 ? `${topic.slice(0, 15)}…` : topic;
      const width = Math.min(GAP - 26, (label.length + text.length) * 6.5 + 26), left = from.x + W + 14;
      const moving = row && row.hz > 0 && !stale();
      const group = faded(name, ...(to.length ? to.slice(0, 1) : []));
      arrows.push(arrow(`${name} ${topic} out`, from.x + W, from.y + H / 2, left, y, moving, dead, row, group, false));
      to.forEach((each) => {
        const end = place.places.get(each);
        if (end) arrows.push(arrow(`${name} ${topic} ${each}`, left + width, y, end.x, end.y + H / 2, moving, dead, row, faded(name, each), true));
      });
      pills.push(s("g", { key: `pill ${name} ${topic}`, class: `pillg${group}` }, s("title", {}, to.length ? `${topic}: ${name} → ${to.join(", ")}` : `${topic}: nobody hears it (a program may)`),
        s("rect", { class: `pill${dead ? " x" : ""}${to.length ? "" : " un"}`, x: left, y: y - PILL / 2, width, height: PILL, rx: 12 }),
        s("text", { x: left + width / 2, y: y + 4.2, "text-anchor": "middle", class: "pt" }, s("tspan", { class: "pn" }, label), s("tspan", { dx: 6, class: dead ? "px" : "pr" }, text))));
    });
    if (mine.length > MOST_PILLS) {
      const y = from.y + H / 2 + (MOST_PILLS / 2) * (PILL + 5);
      pills.push(s("text", { key: `more ${name}`, x: from.x + W + 18, y: y + 4, class: "pt dimt" }, `+ ${mine.length - MOST_PILLS} more topics`));
    }
  }
  return [arrows, pills];
}

function arrow(key, x1, y1, x2, y2, moving, dead, row, faded, head) {
  const bend = x2 > x1 ? Math.max(14, (x2 - x1) * 0.45) : 90 + Math.abs(y2 - y1) * 0.2;
  const d = `M${x1} ${y1}C${x1 + bend} ${y1} ${x2 - bend} ${y2} ${x2 - (head ? 6 : 0)} ${y2}`;
  return s("g", { key, class: `edge${faded}` },
    s("path", { class: `e${dead ? " x" : ""}`, d }),
    moving && s("path", { class: "ea", d, style: { "animation-duration": `${(7 / Math.log2(2 + Math.min(row.hz, 500))).toFixed(1)}s` } }),
    head && s("path", { class: dead ? "ah x" : "ah", d: `M${x2} ${y2}l-8 -4.500v9z` }));
}

function nodeOf(node, x, y, faded, changed) {
  const was = stale() ? "was " : "";
  const line = [node.shown === "ready" ? "" : `${was}${node.shown}`, doing(node)].filter(Boolean).join(" · ");
  const press = () => mark(node.name, changed);
  const name = node.name.length > 18 ? `${node.name.slice(0, 17)}…` : node.name;
  const short = line.length > 23 ? `${line.slice(0, 22)}…` : line;
  const space = Math.floor((W - 64 - widthOf(name, "650 13.5px")) / 6.6);
  const cls = (node.class || "").length > space ? `${node.class.slice(0, space - 1)}…` : node.class || "";
  return s("g", { key: `node ${node.name}`, class: `node${faded}${marked === node.name ? " marked" : ""}`, tabindex: 0, role: "button", "aria-pressed": String(marked === node.name), onclick: press, onkeydown: (e) => (e.key === "Enter" || e.key === " ") && (e.preventDefault(), press()) },
    s("title", {}, `${node.name}, a ${node.class || "?"}, ${was}${node.shown}${node.why ? `: ${node.why}` : ""}`),
    s("rect", { class: `nd ${node.wrong ? node.shown : ""}`, x, y, width: W, height: H, rx: 7 }),
    s("g", { class: `ng ${node.shown}`, transform: `translate(${x + 11},${y + 9})` }, shape(node.shown)),
    s("text", { x: x + 32, y: y + 19, class: "nn" }, name),
    space > 5 && s("text", { x: x + W - 10, y: y + 19, "text-anchor": "end", class: "nc" }, cls),
    s("text", { x: x + 32, y: y + 35, class: "nc" }, short));
}

function flowList(edges, topics) {
  return h("ul", { class: "flows plain" }, edges.map(([from, topic, to]) => h("li", { key: `${from} ${topic} ${to}` },
    h("span", {}, h("b", {}, from), " → ", topic, " → ", h("b", {}, to)), h("span", { class: "num dim" }, stale() || !topics[topic] ? "—" : rate(topics[topic].hz)))));
}

// From 60 instances on: a mark for each, by machine.
export function marks(nodes, show) {
  const hosts = new Map();
  for (const node of nodes) hosts.set(node.host || "no machine named", [...(hosts.get(node.host || "no machine named") || []), node]);
  return h("div", { class: "marks live" }, [...hosts.entries()].map(([host, all]) => h("section", { key: host, "aria-label": host },
    h("div", { class: "row" }, h("b", {}, host), h("span", { class: "dim" }, String(all.length)), all.some((n) => n.wrong) && h("span", { class: "tag b" }, `${all.filter((n) => n.wrong).length} wrong`)),
    h("div", { class: "cells" }, all.map((n) => h("button", { key: n.name, title: `${n.name}: ${n.shown}${n.why ? `, ${n.why}` : ""}`, "aria-label": `${n.name}: ${n.shown}`, onclick: () => show(n.name) }, glyph(n.shown)))))));
}
