// The page: what stands on every view, the keys, and when what is drawn.

import { h, render } from "./dom.js";
import { age, clock, count, plural } from "./format.js";
import { glyph, icon } from "./glyphs.js";
import { connect, lab, list, now, on, refusal, wish } from "./store.js";
import { instances, proof, run, session, stale, staleSince, topics, wrong } from "./model.js";
import { VIEWS, choose, go, link, place } from "./nav.js";
import { close, isOpen, open, redraw } from "./dialog.js";
import { askSafe } from "./safe.js";
import { overview, show } from "./overview.js";
import { values, wishes } from "./values.js";
import { calls } from "./calls.js";
import { runs } from "./runs.js";
import { record } from "./record.js";
import { hold, logs } from "./logs.js";
import { labView } from "./lab.js";
import { fitAll, pause, zoom } from "./plot.js";

const NAMES = { overview: "Overview", values: "Values", calls: "Calls", runs: "Runs", record: "Record", logs: "Logs", lab: "Lab" };
const DRAW = { overview, values, calls, runs, record, logs, lab: labView };
const EVERY_MS = 200;

// -- what stands on every view

function top() {
  const r = run(), p = proof(), bad = wrong(), gone = stale();
  return h("header", { class: "top" }, h("a", { class: "brand", href: "#overview", "aria-label": "Ether, overview" }, h("img", { src: "/static/icon.svg", alt: "", width: 24, height: 24 }), h("span", { class: "hide-s" }, "Ether")),
    h("button", { class: "btn sessb", onclick: goTo, title: "Go to anything" }, h("b", { class: "el" }, session().session || "…"), " ▾"),
    h("span", { class: `chipb ${gone ? "bad" : "ok"}`, role: "status" }, glyph(gone ? "lost" : "ready"), h("span", { class: "hide-s" }, gone ? "No connection" : "Live")), session().simulated && h("span", { class: "chipb warn" }, "simulated"), h("span", { class: "sp" }),
    r && r.goesOn && h("a", { class: "chipb hide-m", href: link("runs", { run: r.id }) }, glyph(r.state), h("span", { class: "el" }, r.id), h("span", { class: "bar" }, h("i", { style: { width: `${r.planned ? (100 * r.done) / r.planned : 0}%` } })), `${r.done} of ${r.planned ?? "?"}`, r.left !== null && !r.held && !gone ? [" · ", h("b", {}, age(r.left))] : ""),
    p && p.gaps.length > 0 && h("a", { class: "chipb warn hide-s", href: link("record") }, glyph("hung"), plural(p.gaps.length, "gap")), bad.length > 0 && h("a", { class: "chipb bad", href: "#overview" }, glyph("failed"), `${bad.length} wrong`),
    h("button", { class: "btn sq hide-s", onclick: theme, "aria-label": "Dark or light" }, document.documentElement.dataset.theme === "dark" ? "☀" : "☾"), h("button", { class: "btn sq hide-s", onclick: help, "aria-label": "Keys" }, "?"), lab.everLive && refusal() && h("span", { class: "chipb hide-s", title: lab.mayWhy }, lab.may === "call" ? "looks and calls" : "only looks"), h("button", { class: "btn safe", "aria-disabled": String(Boolean(refusal())), title: refusal(), onclick: askSafe }, "Make safe"));
}

function banner() {
  const gone = stale(), since = staleSince(), r = run();
  if (lab.refused) return h("div", { class: "ban bad", role: "alert" }, glyph("lost"), h("b", {}, "This browser is not known any more"), h("span", {}, "The page's program was started again. ether dashboard prints a new link."));
  if (gone === "page" && lab.lostAt !== null) return h("div", { class: "ban bad", role: "alert" }, glyph("lost"), h("b", {}, `No connection to this page's program for ${age(Date.now() / 1000 + lab.skew - since)}`), h("span", {}, "What is shown is from before. The lab does not need this page, and goes on; the page tries again by itself."));
  if (gone === "broker") return h("div", { class: "ban bad", role: "alert" }, glyph("lost"), h("b", {}, `No connection to the session since ${clock(since)}`), h("span", {}, "Its broker, or the program that leads it, is gone. Instances keep in their outboxes what they save; the page comes back by itself when the session does."));
  if (lab.live && session().session && !session().led) return h("div", { class: "ban warn", role: "alert" }, glyph("hung"), h("b", {}, "No program leads this session"), h("span", {}, "Its instances go on; nobody starts again what fails."));
  if (r?.goesOn && r.held) return h("div", { class: "ban warn", role: "alert" }, glyph(r.state), h("b", {}, `${r.id} is ${r.state}`), h("span", {}, r.held), h("a", { href: link("runs", { run: r.id }) }, "Show"));
  return null;
}

function nav(view) {
  const failing = list("logs").filter((line) => ["ERROR", "CRITICAL"].includes(line.level) && now() - line.time < 600).length;
  const counts = { overview: wrong().length, logs: failing, record: proof()?.gaps.length || 0 };
  return h("nav", { class: "nav", "aria-label": "Views" }, VIEWS.map((each) => h("a", { key: each, href: `#${each}`, "aria-current": each === view ? "page" : undefined }, icon(each), h("span", {}, NAMES[each]), counts[each] > 0 && h("span", { class: "ct bad", "aria-label": `${counts[each]} to look at` }, count(counts[each])))), h("div", { class: "keys" }, h("kbd", {}, "1"), "–", h("kbd", {}, "7"), " views · ", h("kbd", {}, "/"), " find", h("br"), h("kbd", {}, "?"), " all keys"));
}

function draw() {
  const { view } = place();
  document.title = `${wrong().length ? `(${wrong().length}) ` : ""}${NAMES[view]} · ${session().session || "Ether"}`;
  if (view !== "values") wish({ plotted: [], window_s: 60, pixels: 800, picture: "", table: "" });
  const body = lab.everLive ? DRAW[view]() : h("section", { class: "panel empty" }, h("b", {}, lab.lostAt ? "The page's program does not answer" : "Connecting…"));
  render(document.getElementById("app"), h("div", { class: `app${stale() ? " stale" : ""}` }, h("a", { class: "skip", href: "#main", onclick: (e) => { e.preventDefault(); document.querySelector("main").focus(); } }, "To the content"), top(), banner(), nav(view), h("main", { id: "main", tabindex: -1, key: view, class: `v-${view}` }, body)));
  redraw();
}

// -- when it is drawn: at once for a person, a few times a second for the lab

let due = 0, at = 0;
function soon(pause_ms) {
  const wanted = Date.now() + pause_ms;
  if (due && at <= wanted) return;
  clearTimeout(due);
  at = wanted;
  due = setTimeout(() => { due = 0; lastDrawn = Date.now(); draw(); }, pause_ms);
}
let lastDrawn = 0, touched = false;
on("rows", () => soon(touched ? 0 : Math.max(0, EVERY_MS - (Date.now() - lastDrawn))));
for (const kind of ["click", "input", "change", "keydown"]) addEventListener(kind, () => { touched = true; soon(0); queueMicrotask(() => { touched = false; }); }, true);
setInterval(() => soon(0), 1000);
addEventListener("hashchange", () => { close(); draw(); document.querySelector("main")?.focus({ preventScroll: true }); scrollTo(0, 0); });
addEventListener("resize", () => soon(100));

// -- dialogs and keys

function theme() {
  const dark = document.documentElement.dataset.theme === "dark";
  document.documentElement.dataset.theme = dark ? "light" : "dark";
  try { localStorage.setItem("ether-theme", dark ? "light" : "dark"); } catch { /* it lasts as long as the page */ }
  draw();
}

const KEYS = [["1–7", "views"], ["/", "find here"], ["Ctrl+K, g", "go to anything"], ["Space", "pause the plot, hold the log"], ["+ − ← → 0", "zoom, move, fit the plot"], ["w", "where the shown value comes from"], ["Ctrl+Enter", "call"], ["t", "dark or light"], ["Shift+S", "make safe"], ["Esc", "back to where the focus was"], ["?", "these keys"]];
const help = () => open(() => ({ title: "Keys", body: h("dl", { class: "keysl" }, KEYS.map(([key, what]) => h("div", { key }, h("dt", {}, h("kbd", {}, key)), h("dd", {}, what)))) }));

let sought = "";
function goTo() {
  sought = "";
  open(() => {
    const all = [...VIEWS.map((v) => [NAMES[v], "view", () => go(v)]), ...instances().map((i) => [i.name, `instance, ${i.shown}`, () => { go("overview"); setTimeout(() => show(i.name), 60); }]), ...topics().map((t) => [t.topic, "topic", () => go("values", { of: t.topic })]), ...list("runs").map((r) => [r.id, `run, ${r.status}`, () => go("runs", { run: r.id })])];
    const found = all.filter(([name]) => name.toLowerCase().includes(sought.toLowerCase())).slice(0, 12);
    const take = (each) => { close(); each?.[2](); };
    return { title: "Go to", body: [h("input", { class: "inp wide", autofocus: true, type: "search", "aria-label": "Go to", placeholder: "View, instance, topic or run", value: sought, oninput: (e) => { sought = e.target.value; redraw(); }, onkeydown: (e) => e.key === "Enter" && take(found[0]) }), h("ul", { class: "plain gol" }, found.map((each) => h("li", { key: `${each[1]} ${each[0]}` }, h("button", { class: "meth", onclick: () => take(each) }, each[0], h("span", { class: "dim" }, ` ${each[1]}`)))), !found.length && h("li", { class: "dim" }, "Nothing is called that."))] };
  });
}

function why() {
  const shown = wishes();
  const topic = place().view === "values" && (shown.picture || shown.table || shown.plotted[0]?.split("\x1f")[0]);
  topic ? go("record", { why: topic }) : go("record");
}

addEventListener("keydown", (event) => {
  const typing = event.target.matches?.("input:not([type=checkbox]):not([type=range]), select, textarea"), { view } = place();
  if (event.key === "Escape") return isOpen() ? close() : event.target.blur?.();
  if ((event.ctrlKey || event.metaKey) && event.key.toLowerCase() === "k") { event.preventDefault(); return goTo(); }
  if (typing || isOpen() || event.ctrlKey || event.metaKey || event.altKey) return;
  const plot = view === "values";
  const keys = {
    "/": () => document.querySelector("main .find")?.focus(), g: goTo, t: theme, w: why, "?": help, S: askSafe,
    " ": () => (plot ? pause() : view === "logs" ? (hold(), choose({})) : null),
    "+": () => plot && zoom(0.5), "-": () => plot && zoom(2), ArrowLeft: () => plot && zoom(1, -0.25), ArrowRight: () => plot && zoom(1, 0.25), 0: () => plot && fitAll(),
  };
  if (event.key === " " && event.target.matches?.("button, a, summary, input, [role=button]")) return;
  if (/^[1-7]$/.test(event.key)) go(VIEWS[Number(event.key) - 1]);
  else if (keys[event.key]) keys[event.key]();
  else return;
  event.preventDefault();
});

draw();
connect();
