// A small curve of the last minute, beside a value.

import { h } from "./dom.js";
import { lab } from "./store.js";

export const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

export function fit(canvas) {
  const scale = devicePixelRatio || 1, w = canvas.clientWidth, tall = canvas.clientHeight;
  if (!w || !tall) return null;
  if (canvas.width !== Math.round(w * scale) || canvas.height !== Math.round(tall * scale)) {
    canvas.width = Math.round(w * scale);
    canvas.height = Math.round(tall * scale);
  }
  const x = canvas.getContext("2d");
  x.setTransform(scale, 0, 0, scale, 0, 0);
  x.clearRect(0, 0, w, tall);
  return { x, w, tall };
}

const drawn = new Map();
setInterval(() => {
  for (const [el, [key, colour]] of drawn) {
    const box = el.getBoundingClientRect();
    if (box.bottom > 0 && box.top < innerHeight) draw(el, key, colour);
  }
}, 500);

export function spark(key, colour = "--acc") {
  return h("canvas", { key: `spark ${key}`, class: "spk", "aria-hidden": "true", mount: (el) => { drawn.set(el, [key, colour]); draw(el, key, colour); return () => drawn.delete(el); } });
}

function draw(canvas, key, colour) {
  const points = lab.sparks.get(key), room = fit(canvas);
  if (!room) return;
  const { x, w, tall } = room;
  const values = points ? points.v.filter((v) => v !== null) : [];
  if (values.length < 2) return;
  const end = points.t[points.t.length - 1], begin = Math.min(points.t[0], end - 20);
  const low = Math.min(...values), high = Math.max(...values), span = high - low || 1;
  x.strokeStyle = css(colour);
  x.lineWidth = 1.4;
  x.lineJoin = "round";
  x.beginPath();
  let down = false;
  points.t.forEach((t, i) => {
    const v = points.v[i];
    if (v === null) { down = false; return; }
    const px = 1 + ((t - begin) / (end - begin || 1)) * (w - 2), py = tall - 3 - ((v - low) / span) * (tall - 6);
    down ? x.lineTo(px, py) : x.moveTo(px, py);
    down = true;
  });
  x.stroke();
}
