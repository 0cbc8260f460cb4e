// The newest image of a topic: coloured and scaled here, so that a change of the scale asks nobody.

import { h } from "./dom.js";
import { age, count, number } from "./format.js";
import { silentFor, stale } from "./model.js";
import { lab, on } from "./store.js";
import { choose, chosen, link } from "./nav.js";
import { css, fit } from "./spark.js";

// A few colours of each map, between which the others lie. All are even to the eye; none is a rainbow.
const MAPS = {
  viridis: ["440154", "472d7b", "3b528b", "2c728e", "21918c", "28ae80", "5ec962", "addc30", "fde725"],
  cividis: ["00224e", "123570", "3b496c", "575d6d", "707173", "8a8678", "a59c74", "c3b369", "fee838"],
  inferno: ["000004", "210c4a", "57106e", "8a226a", "bc3754", "e35933", "f98e09", "f9cb35", "fcffa4"],
  grey: ["000000", "ffffff"],
};
const ZOOMS = [1, 2, 4, 8];
const BINS = 128;
let canvas = null, bars = null, pointed = null, drawnAt = 0;

function lookup(name) {
  const colours = (MAPS[name] || MAPS.viridis).map((hex) => [0, 2, 4].map((i) => parseInt(hex.slice(i, i + 2), 16)));
  const table = new Uint32Array(256);
  for (let i = 0; i < 256; i++) {
    const f = (i / 255) * (colours.length - 1), k = Math.min(colours.length - 2, Math.floor(f)), u = f - k;
    const [r, g, b] = colours[k].map((c, j) => Math.round(c + (colours[k + 1][j] - c) * u));
    table[i] = (255 << 24) | (b << 16) | (g << 8) | r;
  }
  return table;
}
const tables = Object.fromEntries(Object.keys(MAPS).map((name) => [name, lookup(name)]));

const scaleOf = () => ({ map: MAPS[chosen("map")] ? chosen("map") : "viridis", zoom: Number(chosen("zoom", "1")) || 1, auto: chosen("auto", "1") !== "0", low: Number(chosen("lo", "0")), high: Number(chosen("hi", "100")) });

function histogram(pixels) {
  const bins = new Uint32Array(BINS), step = Math.max(1, Math.floor(pixels.length / 80000));
  for (let i = 0; i < pixels.length; i += step) bins[(pixels[i] * BINS) >> 16]++;
  return bins;
}

// The ends of the scale, as numbers from 0 to 65535.
function ends(bins, { auto, low, high }) {
  if (!auto) return [(low / 100) * 65535, Math.max((low + 0.5) / 100, high / 100) * 65535];
  const all = bins.reduce((sum, n) => sum + n, 0);
  let a = 0, b = BINS - 1, under = bins[0], over = bins[BINS - 1];
  while (a < BINS - 1 && under < all * 0.01) under += bins[++a];
  while (b > a && over < all * 0.01) over += bins[--b];
  return [(a / BINS) * 65535, ((b + 1) / BINS) * 65535];
}

export function picturePanel(t) {
  const now_ = lab.picture?.head.topic === t.topic ? lab.picture : null, scale = scaleOf(), head = now_?.head, quiet = silentFor(t);
  const drawn = now_ && now_.times.length > 1 ? (now_.times.length - 1) / ((now_.times[now_.times.length - 1] - now_.times[0]) / 1000) : 0;
  return h("section", { class: "panel live", "aria-label": `Image of ${t.topic}` }, h("div", { class: "ph" }, h("h2", {}, t.topic), h("span", { class: "tag" }, t.type), head && h("span", { class: "note" }, "frame ", h("a", { class: "v", href: link("record", { why: head.id || t.topic }) }, count(head.number)), head.field ? ` · ${head.field}` : ""), h("span", { class: "sp" }),
    h("span", { class: "note" }, stale() ? "no connection" : quiet ? `silent ${age(quiet)}` : drawn && t.hz ? `${count(Math.min(drawn, t.hz))} of ${count(t.hz)} frames a second are drawn` : "", head && head.step > 1 ? ` · every ${head.step}th pixel` : "", head?.bad ? ` · ${count(head.bad)} pixels are not a number` : "")),
    h("div", { class: "pb imgw" }, h("div", { class: "cv" }, h("canvas", { class: "pic", role: "img", "aria-label": `Newest image of ${t.topic}`, mount: attach, onpointermove: point, onpointerleave: () => { pointed = null; } })),
      h("div", { class: "col" }, h("div", { class: "row" }, h("select", { class: "inp grow", "aria-label": "Colour map", value: scale.map, onchange: (e) => choose({ map: e.target.value }) }, Object.keys(MAPS).map((each) => h("option", { key: each, value: each, selected: each === scale.map }, each))), h("button", { class: "btn", "aria-label": `Zoom, now ${scale.zoom} times`, onclick: () => choose({ zoom: ZOOMS[(ZOOMS.indexOf(scale.zoom) + 1) % ZOOMS.length] }) }, `${scale.zoom}×`)),
        h("canvas", { class: "his", role: "img", "aria-label": "Histogram of the image, logarithmic", mount: (el) => { bars = el; draw(true); return () => { bars = null; }; } }),
        h("label", { class: "row" }, h("input", { type: "checkbox", checked: scale.auto, onchange: (e) => choose({ auto: e.target.checked ? "" : "0" }) }), "scale to 1–99 % of the pixels"),
        !scale.auto && h("label", { class: "row" }, h("span", { class: "dim lbl" }, "low"), h("input", { class: "grow", type: "range", min: 0, max: 100, step: 0.5, value: String(scale.low), oninput: (e) => choose({ lo: e.target.value }) })), !scale.auto && h("label", { class: "row" }, h("span", { class: "dim lbl" }, "high"), h("input", { class: "grow", type: "range", min: 0, max: 100, step: 0.5, value: String(scale.high), oninput: (e) => choose({ hi: e.target.value }) })),
        h("div", { class: "note", id: "pixel" }))));
}

function attach(el) {
  canvas = el;
  const stop = [on("picture", () => draw()), on("rows", () => draw())];
  draw(true);
  return () => { stop.forEach((each) => each()); canvas = null; };
}

const asValue = (raw, head) => head.low + (raw / 65535) * (head.high - head.low);

function place(event) {
  const { head } = lab.picture, box = canvas.getBoundingClientRect(), { zoom } = scaleOf();
  const x = ((event.clientX - box.left) / box.width - 0.5) / zoom + 0.5, y = ((event.clientY - box.top) / box.height - 0.5) / zoom + 0.5;
  return [Math.min(head.width - 1, Math.floor(x * head.width)), Math.min(head.height - 1, Math.floor(y * head.height))];
}
function point(event) {
  if (!lab.picture || !canvas) return;
  pointed = place(event);
  document.getElementById("pixel")?.replaceChildren(document.createTextNode(pixelText()));
}
function pixelText() {
  if (!pointed || !lab.picture) return "point at a pixel to read it";
  const { head, pixels } = lab.picture, [x, y] = pointed;
  return `row ${count(y * head.step)}, column ${count(x * head.step)}: ${number(Number(asValue(pixels[y * head.width + x], head).toPrecision(5)))}`;
}

function draw(at_once = false) {
  if (!canvas || !lab.picture || (!at_once && Date.now() - drawnAt < 90)) return;
  drawnAt = Date.now();
  const { head, pixels } = lab.picture, scale = scaleOf(), bins = histogram(pixels), [low, high] = ends(bins, scale);
  const table = tables[scale.map], image = new ImageData(head.width, head.height), out = new Uint32Array(image.data.buffer), factor = 255 / Math.max(1, high - low);
  for (let i = 0; i < pixels.length; i++) { const v = (pixels[i] - low) * factor; out[i] = table[v <= 0 ? 0 : v >= 255 ? 255 : v | 0]; }
  canvas.width = head.width;
  canvas.height = head.height;
  const x = canvas.getContext("2d");
  if (scale.zoom === 1) x.putImageData(image, 0, 0);
  else {
    const w = head.width / scale.zoom, tall = head.height / scale.zoom, part = new OffscreenCanvas(head.width, head.height);
    part.getContext("2d").putImageData(image, 0, 0);
    x.imageSmoothingEnabled = false;
    x.drawImage(part, (head.width - w) / 2, (head.height - tall) / 2, w, tall, 0, 0, head.width, head.height);
  }
  canvas.dataset.frame = head.number;
  if (bars) drawBars(bins, low, high, table, head);
  document.getElementById("pixel")?.replaceChildren(document.createTextNode(pixelText()));
}

function drawBars(bins, low, high, table, head) {
  const room = fit(bars);
  if (!room) return;
  const { x, w, tall } = room, base = tall - 18, most = Math.log(1 + Math.max(...bins));
  x.fillStyle = css("--faint");
  for (let i = 0; i < BINS; i++) { const size = (Math.log(1 + bins[i]) / most) * (base - 2); x.fillRect((i * w) / BINS, base - size, Math.max(1, w / BINS - 0.7), size); }
  x.fillStyle = css("--acc");
  for (const end of [low, high]) x.fillRect(Math.min(w - 2, (end / 65535) * w), 0, 2, base);
  for (let i = 0; i < w; i++) { const v = ((i / w) * 65535 - low) / Math.max(1, high - low), c = table[Math.max(0, Math.min(255, (v * 255) | 0))]; x.fillStyle = `rgb(${c & 255},${(c >> 8) & 255},${(c >> 16) & 255})`; x.fillRect(i, base + 2, 1.5, 4); }
  x.fillStyle = css("--dim");
  x.font = `11px ${css("--sans")}`;
  x.textBaseline = "bottom";
  x.textAlign = "left";
  x.fillText(number(Number(head.low.toPrecision(4))), 0, tall);
  x.textAlign = "right";
  x.fillText(number(Number(head.high.toPrecision(4))), w, tall);
}
