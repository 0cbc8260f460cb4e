// The overview: what is wrong, how long it will take, whether it is saved; then the graph and the instances.

import { h } from "./dom.js";
import { age, bytes, clock, count, dash, plural, rate } from "./format.js";
import { glyph, state } from "./glyphs.js";
import { graph, marks } from "./graph.js";
import { doing, instances, proof, programs, run, sinceOf, stale, wrong } from "./model.js";
import { changed, list, now } from "./store.js";
import { choose, chosen, link } from "./nav.js";
import { blocks } from "./runs.js";

const MANY = 60;

export function overview() {
  const all = instances();
  return [h("h1", { class: "vh" }, "Overview"), answers(all), all.length || programs().length > 1 ? body(all) : nothing()];
}

function nothing() {
  return h("section", { class: "panel empty" }, h("b", {}, "No instance is in this session yet"),
    h("span", {}, "Instances appear here with their first announcement. These lines start one:"),
    h("pre", { class: "codeb" }, "ether new lab\ncd lab && ether run"));
}

function answers(all) {
  return h("div", { class: "ans live" }, wrongNow(all), howLong(), isSaved());
}

function wrongNow(all) {
  const bad = wrong(), was = stale() ? "was " : "";
  const failing = list("logs").filter((r) => r.level === "ERROR" && now() - r.time < 60).length;
  return h("section", { class: `panel ${bad.length ? "bad" : "ok"}`, "aria-label": "What is wrong now" }, h("h2", { class: "h3" }, "What is wrong now"),
    h("div", { class: "big" }, bad.length ? `${bad.length} of ${all.length} need you` : all.length ? `Nothing: ${plural(all.length, "instance")} well` : "Nothing"),
    bad.slice(0, 4).map((each) => h("div", { class: "issue", key: each.name },
      h("span", { class: `st ${each.safe ? "safe" : each.shown}` }, glyph(each.safe ? "safe" : each.shown), `${was}${each.safe ? "safe state" : each.shown}`),
      h("span", { class: "el" }, h("b", {}, each.name), " ", h("span", { class: "dim" }, `for ${age(now() - sinceOf(each))}`)),
      h("button", { class: "btn sm", onclick: () => show(each.name), "aria-label": `Show ${each.name}` }, "Show"),
      each.why && h("span", { class: "r2", title: each.why }, each.why))),
    bad.length > 4 && h("span", { class: "dim" }, `and ${bad.length - 4} more below`),
    failing > 0 && h("a", { href: link("logs", { level: "ERROR" }) }, `${plural(failing, "error")} in the last minute`));
}

function howLong() {
  const r = run();
  if (!r) return h("section", { class: "panel", "aria-label": "How long will it take" }, h("h2", { class: "h3" }, "How long will it take"), h("div", { class: "big" }, "No run goes on"),
    h("span", { class: "dim" }, "with ether.run(\"name\"): … begins one"), h("a", { href: link("runs") }, "Earlier runs"));
  const kind = r.goesOn ? (r.held ? "warn" : "ok") : r.status === "ended" ? "ok" : "bad";
  const open = r.goesOn && r.trial ? `trial ${r.done + 1} of ${r.planned ?? "?"}` : `${r.done} of ${r.planned ?? "?"} trials done`;
  return h("section", { class: `panel ${kind}`, "aria-label": "How long will it take" }, h("h2", { class: "h3" }, "How long will it take"),
    h("div", { class: "big" }, stale() ? "not known" : !r.goesOn ? `It has ${r.status === "left" ? "been left" : r.status}` : r.held ? r.state[0].toUpperCase() + r.state.slice(1) : r.left === null ? "Not known yet" : age(r.left)),
    blocks(r, true),
    h("span", { class: "dim" }, h("a", { href: link("runs", { run: r.id }) }, r.id), ` · ${open}`, r.repeated.length ? `, ${r.repeated.length} repeated` : "", r.goesOn && !r.held && r.left !== null && !stale() ? ` · done at about ${clock(now() + r.left, false)}` : ""),
    r.held && h("span", { class: "warnt" }, r.held), !r.goesOn && r.error && h("span", { class: "errl" }, r.error));
}

function isSaved() {
  const p = proof();
  if (!p) return h("section", { class: "panel", "aria-label": "Is it saved" }, h("h2", { class: "h3" }, "Is it saved"), h("div", { class: "big" }, "Nothing is recorded"), h("span", { class: "dim" }, "record: all in the configuration, or save=True, records."));
  const bad = p.problem ? "bad" : p.gaps.length ? "warn" : "ok";
  return h("section", { class: `panel ${bad}`, "aria-label": "Is it saved" }, h("h2", { class: "h3" }, "Is it saved"),
    h("div", { class: "big" }, stale() ? "not known; was " : "", p.total <= p.durable && !p.gaps.length ? `All ${count(p.durable)} on disk` : `${count(p.durable)} of ${count(p.total)} on disk`),
    h("span", { class: "dim" }, h("a", { href: link("record") }, p.gaps.length ? plural(p.gaps.length, "gap") : "0 gaps"), `, ${plural(p.duplicates, "duplicate")}`, p.waiting ? `, ${count(p.waiting)} wait` : ""),
    p.problem && h("span", { class: "errl" }, p.problem), h("span", { class: "dim" }, p.forecast),
    h("a", { href: link("record") }, "Why of any value"));
}

export function show(name) {
  choose({ of: name });
  const card = document.getElementById(`card-${name}`);
  card?.scrollIntoView({ block: "center", behavior: matchMedia("(prefers-reduced-motion: reduce)").matches ? "auto" : "smooth" });
  card?.focus({ preventScroll: true });
}

function body(all) {
  const many = all.length >= MANY, asTable = many || chosen("as") === "table";
  const wanted = chosen("q").toLowerCase();
  const found = all.filter((each) => !wanted || [each.name, each.class, each.host, each.shown].join(" ").toLowerCase().includes(wanted));
  const machines = new Set(all.map((each) => each.host)).size;
  return h("div", { class: "ov" },
    h("section", { class: "panel gp" }, h("div", { class: "ph" },
      h("h2", {}, many ? `${all.length} instances on ${plural(machines, "machine")}` : "Who publishes to whom"), h("span", { class: "note hide-s" }, many ? "a mark for each" : "press an instance to follow it"),
      h("span", { class: "sp" }), h("span", { class: "legend hide-s" }, ["ready", "busy", "offline", "hung", "failed"].map((each) => h("span", { class: "lg1", key: each }, glyph(each), each)))),
      h("div", { class: "pb" }, many ? marks(all, show) : graph(all, changed))),
    h("section", { class: "insts" }, h("div", { class: "row ihead" }, h("h2", {}, "Instances"), h("span", { class: "note" }, "worst first"),
      (many || wanted) && h("input", { class: "inp find", type: "search", "aria-label": "Filter instances", placeholder: "Name, class, machine, state", value: chosen("q"), oninput: (e) => choose({ q: e.target.value }) }),
      h("span", { class: "sp" }),
      h("span", { class: "seg", role: "group", "aria-label": "Show as" }, ["cards", "table"].map((each) => h("button", { key: each, "aria-pressed": String(asTable === (each === "table")), disabled: many && each === "cards", onclick: () => choose({ as: each }) }, each === "cards" ? "Cards" : "Table")))),
      asTable ? instanceTable(found) : h("div", { class: "cards live" }, found.map(card))));
}

const percent = (share) => (Number.isFinite(share) ? `${Math.round(share * 100)} %` : dash);
const known = (value, shown) => (stale() || value === null || value === undefined ? dash : shown(value));

function card(each) {
  const b = each.beat, was = stale() ? "was " : "";
  const f = b.failures || {};
  return h("article", { key: each.name, id: `card-${each.name}`, tabindex: -1, class: `card ${each.wrong ? (each.shown === "offline" ? "k-off" : "k-bad") : ""} ${chosen("of") === each.name ? "sel" : ""}` },
    h("div", { class: "row" }, h("h3", { class: "nm el grow" }, each.name), state(each.shown, `${was}${each.shown}`)),
    h("div", { class: "dim el", title: each.doc || "" }, `${each.class || "?"} on ${each.host || "?"} · up ${age(now() - each.since)}`),
    h("div", { class: "el" }, doing(each) || h("span", { class: "dim" }, "—")),
    each.why && h("div", { class: "errl", title: each.why }, each.why),
    f.count > 0 && h("div", { class: "dim el", title: f.last }, h("a", { href: link("logs", { by: each.name, level: "ERROR" }) }, plural(f.count, "error")), `, the last ${age(now() - f.at)} ago`),
    h("div", { class: "kv" },
      h("div", {}, h("span", {}, "out"), known(b.published_hz, rate)), h("div", {}, h("span", {}, "CPU"), known(b.cpu, percent)),
      h("div", {}, h("span", {}, "memory"), known(b.memory_mb, (mb) => bytes(mb * 1e6))), h("div", {}, h("span", {}, "waiting"), known(b.queued, count))),
    h("div", { class: "acts" }, each.calls > 0 && h("a", { class: "btn sm ghost", href: link("calls", { of: each.name }) }, "Call"), h("a", { class: "btn sm ghost", href: link("logs", { by: each.name }) }, "Log"), each.safe && h("span", { class: "tag w" }, "in its safe state"), each.lease && h("span", { class: "tag w", title: each.lease.reason || "" }, "leased")));
}

function instanceTable(all) {
  const was = stale() ? "was " : "";
  return h("div", { class: "panel tw live", tabindex: 0, role: "region", "aria-label": "Table of instances" }, h("table", {}, h("thead", {}, h("tr", {}, ["Instance", "State", "Doing"].map((t) => h("th", { key: t, scope: "col" }, t)), ["Out", "CPU", "Memory", "Waiting"].map((t) => h("th", { key: t, scope: "col", class: "num" }, t)), h("th", { scope: "col" }, "Machine"), h("th", { scope: "col" }, "What is wrong"))),
    h("tbody", {}, all.map((each) => h("tr", { key: each.name, id: `card-${each.name}`, tabindex: -1, "aria-selected": String(chosen("of") === each.name) },
      h("td", {}, h("a", { href: link("logs", { by: each.name }) }, h("b", {}, each.name)), " ", h("span", { class: "dim" }, each.class)), h("td", {}, state(each.shown, `${was}${each.shown}`)), h("td", { class: "nw" }, doing(each)),
      h("td", { class: "num" }, known(each.beat.published_hz, rate)), h("td", { class: "num" }, known(each.beat.cpu, percent)), h("td", { class: "num" }, known(each.beat.memory_mb, (mb) => bytes(mb * 1e6))), h("td", { class: "num" }, known(each.beat.queued, count)), h("td", {}, each.host), h("td", { class: "whyc" }, each.why))))));
}

