// The log of every instance in one list: newest at the bottom, equal lines in a row are one, and scrolling is never taken
// away: what is new is counted while one reads.

import { h } from "./dom.js";
import { clock, count, plural } from "./format.js";
import { glyph } from "./glyphs.js";
import { stale } from "./model.js";
import { list } from "./store.js";
import { choose, chosen, link } from "./nav.js";

const LEVELS = ["DEBUG", "INFO", "WARNING", "ERROR"];
const AT_LEAST = { DEBUG: 0, INFO: 1, WARNING: 2, ERROR: 3, CRITICAL: 4 };
const SHOWN = 600;
let held = 0;

export const hold = (lines = all()) => { held = held ? 0 : lines.length ? lines[lines.length - 1].n : 0; };
const all = () => list("logs").sort((a, b) => a.n - b.n);

export function logs() {
  const lines = all(), least = chosen("level", "INFO"), by = chosen("by"), wanted = chosen("q").toLowerCase();
  const names = [...new Set(lines.map((line) => line.by))].sort();
  const fits = (line) => (AT_LEAST[line.level] ?? 1) >= AT_LEAST[least] && (!by || line.by === by) && (!wanted || `${line.by} ${line.logger} ${line.text}`.toLowerCase().includes(wanted));
  const found = lines.filter(fits), seen = held ? found.filter((line) => line.n <= held) : found, fresh = found.length - seen.length;
  const shown = grouped(seen).slice(-SHOWN);
  if (!lines.length) return [h("h1", { class: "vh" }, "Logs"), h("section", { class: "panel empty" }, h("b", {}, "No instance has logged anything yet"), h("span", {}, "What instances log and print appears here, as it comes."), h("pre", { class: "codeb" }, "logging.getLogger(\"pump\").warning(\"pressure %.1f bar\", bar)"))];
  return [h("h1", { class: "vh" }, "Logs"), h("section", { class: "panel live", "aria-label": "Logs" },
    h("div", { class: "ph" }, h("span", { class: "seg", role: "group", "aria-label": "Least level" }, LEVELS.map((level) => h("button", { key: level, "aria-pressed": String(least === level), onclick: () => choose({ level }) }, level.toLowerCase()))),
      h("select", { class: "inp", "aria-label": "Instance", value: by, onchange: (e) => choose({ by: e.target.value }) }, h("option", { key: "", value: "", selected: !by }, "everybody"), names.map((name) => h("option", { key: name, value: name, selected: by === name }, name))),
      h("input", { class: "inp find grow", type: "search", placeholder: "Find in the log  /", "aria-label": "Find in the log", value: chosen("q"), oninput: (e) => choose({ q: e.target.value }) }),
      h("button", { class: `btn${held ? " pri" : ""}`, "aria-pressed": String(Boolean(held)), onclick: () => { hold(lines); choose({}); } }, held ? `Go on${fresh ? `, ${count(fresh)} new` : ""}` : "Hold"),
      h("span", { class: "note" }, `${plural(found.length, "line")} of ${count(lines.length)}`)),
    h("div", { class: "lg", tabindex: 0, role: "log", "aria-label": "Log lines", "aria-live": "off", mount: follow }, shown.length > SHOWN - 1 && h("p", { class: "note pb" }, `older lines: ether logs -s …`), shown.map(row), !shown.length && h("p", { class: "empty" }, "No line fits."), stale() && h("p", { class: "note pb" }, "No connection: nothing newer is known.")))];
}

function grouped(lines) {
  const found = [];
  for (const line of lines) {
    const last = found[found.length - 1];
    if (last && last.by === line.by && last.level === line.level && last.text === line.text) found[found.length - 1] = { ...line, n: last.n, times: last.times + 1 };
    else found.push({ ...line, times: 1 });
  }
  return found;
}

function row(line) {
  const [first, ...more] = line.text.split("\n");
  return h("div", { key: line.n, class: `ll ${line.level}` }, h("span", { class: "dim", title: new Date(line.time * 1000).toISOString() }, clock(line.time), h("span", { class: "ms" }, `.${String(Math.floor((line.time % 1) * 1000)).padStart(3, "0")}`)), h("a", { class: "el", href: link("logs", { by: line.by }) }, line.by),
    h("span", { class: `st ${line.level}` }, ["WARNING", "ERROR", "CRITICAL"].includes(line.level) && glyph(line.level), line.level.toLowerCase()),
    h("span", { class: "m" }, first, line.times > 1 && h("span", { class: "tag" }, `${count(line.times)}×`), more.length > 0 && h("details", {}, h("summary", {}, `${more.length} more lines`), h("pre", {}, more.join("\n")))), line.id ? h("a", { class: "c", href: link("record", { why: line.id }) }, "cause") : h("span"));
}

function follow(el) {
  let atEnd = true;
  el.scrollTop = el.scrollHeight;
  el.addEventListener("scroll", () => { atEnd = el.scrollHeight - el.scrollTop - el.clientHeight < 40; });
  const watch = new MutationObserver(() => { if (atEnd && !held) el.scrollTop = el.scrollHeight; });
  watch.observe(el, { childList: true, subtree: true });
  return () => { watch.disconnect(); held = 0; };
}
