// The record: the proof, what is saved at which rate, where a value comes from, what differed between two runs.

import { h } from "./dom.js";
import { bytes, clock, count, plural, quoted, rate } from "./format.js";
import { glyph } from "./glyphs.js";
import { proof, session, stale, topics } from "./model.js";
import { ask, changed, list } from "./store.js";
import { choose, chosen, copy, link } from "./nav.js";

const trees = new Map(), diffs = new Map();
let asked = "";

async function fetchTree(what) {
  if (trees.has(what)) return;
  trees.set(what, { loading: true });
  if (trees.size > 30) trees.delete(trees.keys().next().value);
  const isId = /^[0-9a-f]{8}[0-9a-f-]*$/i.test(what) || /^(row\s*|#)?\d+$/i.test(what);
  trees.set(what, await ask("why", isId ? { what } : { what, last: "1" }));
  changed();
}

export function record() {
  const p = proof();
  return [h("h1", { class: "vh" }, "Record"), p ? proven(p) : h("section", { class: "panel empty" }, h("b", {}, "Nothing is recorded in this session"), h("span", {}, "This line in the configuration records everything:"), h("pre", { class: "codeb" }, "record: all")),
    h("div", { class: "two r" }, p ? saving(p) : h("div", { hidden: true }), where()), p && differed()];
}

function proven(p) {
  const [first] = p.proofs;
  const rows = p.gaps.slice(0, 50);
  const text = p.proofs.map((each) => each.summary).join("; ");
  return h("section", { class: "panel live", "aria-label": "Proof" }, h("div", { class: "pb col" }, h("h2", { class: "h3" }, "Proof"),
    h("div", { class: "proof" }, stale() && "was: ", `${count(p.durable)} of ${count(p.total)} on disk, `, p.gaps.length ? h("span", { class: "warnt" }, plural(p.gaps.length, "gap")) : "0 gaps", `, ${plural(p.duplicates, "duplicate")}`),
    p.problem && h("div", { class: "res bad" }, p.problem),
    h("div", { class: "row" }, h("span", { class: "dim" }, h("code", {}, first.folder), first.host ? ` on ${first.host}` : "", p.waiting ? ` · ${count(p.waiting)} wait at their sources` : "", first.at ? ` · as of ${clock(first.at)}` : ""), h("span", { class: "sp" }), h("button", { class: "btn sm", onclick: () => copy(text) }, "Copy the proof")),
    rows.length > 0 && h("div", { class: "tw", tabindex: 0, role: "region", "aria-label": "Gaps" }, h("table", {}, h("thead", {}, h("tr", {}, h("th", { scope: "col" }, "Missing"), h("th", { class: "num", scope: "col" }, "From"), h("th", { class: "num", scope: "col" }, "To"), h("th", { scope: "col" }, "Why"))), h("tbody", {}, rows.map((gap, i) => h("tr", { key: i }, h("td", {}, glyph("hung"), " ", h("b", {}, gap.source || gap.outbox || "?")), h("td", { class: "num" }, count(gap.first ?? gap.from)), h("td", { class: "num" }, count(gap.last ?? gap.to)), h("td", {}, gap.why || gap.reason || "")))))),
  ));
}

function saving(p) {
  const [first] = p.proofs, all = first.topics;
  const recorded = (name) => (all ? all.some((filter) => fits(filter, name)) : !name.startsWith("mqtt:"));
  const rows = topics().filter((t) => recorded(t.topic));
  const total = rows.reduce((sum, t) => sum + t.bytes_per_s, 0);
  return h("section", { class: "panel live" }, h("div", { class: "ph" }, h("h2", {}, "What is being saved"), h("span", { class: "sp" }), h("span", { class: "note" }, h("b", {}, `${bytes(total)}/s`), " as it is sent"), h("a", { class: "btn sm", download: "", href: "/read/export?form=csv" }, "Export CSV")),
    h("div", { class: "tw tall", tabindex: 0, role: "region", "aria-label": "Topics that are saved" }, h("table", {}, h("thead", {}, h("tr", {}, h("th", { scope: "col" }, "Topic"), h("th", { scope: "col" }, "By"), h("th", { class: "num", scope: "col" }, "Rate"), h("th", { class: "num", scope: "col" }, "Volume"))),
      h("tbody", {}, rows.map((t) => h("tr", { key: t.topic }, h("td", {}, h("a", { class: "v", href: link("record", { why: t.topic }) }, t.topic)), h("td", { class: "dim" }, t.by), h("td", { class: `num${t.hz ? "" : " bad"}` }, stale() ? "—" : rate(t.hz)), h("td", { class: "num" }, stale() ? "—" : `${bytes(t.bytes_per_s)}/s`)))))),
    h("div", { class: "pb" }, h("b", {}, "Disk "), h("span", { class: "dim" }, first.forecast || "not known")));
}

function fits(filter, name) {
  const wanted = filter.split("/"), levels = name.split("/");
  for (let i = 0; i < wanted.length; i++) {
    if (wanted[i] === "#") return true;
    if (i >= levels.length || (wanted[i] !== "+" && wanted[i] !== levels[i])) return false;
  }
  return wanted.length === levels.length;
}

// -- where a value comes from

function where() {
  const what = chosen("why");
  if (what) fetchTree(what);
  const tree = trees.get(what);
  const go = (text) => { trees.delete(text); choose({ why: text }); };
  return h("section", { class: "panel", "aria-label": "Where does it come from" }, h("div", { class: "ph" }, h("h2", {}, "Where does it come from"), h("span", { class: "sp" }), h("form", { class: "row", onsubmit: (e) => { e.preventDefault(); go(asked || what); } }, h("input", { class: "inp find", id: "why", "aria-label": "A topic, an id or a row", placeholder: "topic, id or row", value: asked || what, oninput: (e) => { asked = e.target.value; } }), h("button", { class: "btn" }, "Why"))),
    h("div", { class: "pb" }, !what ? h("p", { class: "dim" }, "Every underlined value on this page leads here: to the messages that it came from, and their code and settings.") : !tree || tree.loading ? h("p", { class: "dim" }, `${what}: the record is being read…`) : tree.error ? h("p", { class: "res bad" }, tree.error) : drawn(tree), what && h("pre", { class: "codeb" }, `ether why ${quoted(what)}${/^[0-9a-f]{8}/.test(what) ? "" : " --last"} -s ${session().session}`)));
}

function drawn(tree) {
  const steps = Array.isArray(tree.steps) ? tree.steps : [];
  const contexts = tree.contexts || {}, names = Object.keys(contexts);
  const roots = [], open = [];
  for (const step of steps) {
    const node = { step, kids: [] };
    open.length = Math.max(0, step.depth);
    (open.length ? open[open.length - 1].kids : roots).push(node);
    open.push(node);
  }
  return [h("div", { class: "tree" }, h("ul", { class: "root" }, roots.map((node, i) => branch(node, names, i)))), names.map((sha, i) => h("details", { key: sha, open: i === 0 }, h("summary", {}, `[${i + 1}] `, contextName(contexts[sha])), h("div", { class: "tb" }, contextRows(contexts[sha]))))];
}

function branch({ step, kids }, names, i) {
  const mark = step.context ? names.indexOf(step.context) + 1 : 0;
  const body = step.group ? h("span", {}, `${count(step.group.count ?? step.group.ids?.length)} messages of `, h("b", {}, step.group.topic || step.group.source || "?"), step.group.source ? ` by ${step.group.source}` : "")
    : step.topic || step.kind ? [h("b", {}, step.topic), " = ", h("code", {}, brief(step.value)), h("span", { class: "dim" }, ` by ${step.source} · ${clock(step.time)}`, step.run && step.trial ? ` · ${step.run} trial ${step.trial}` : ""), h("code", { class: "dim", title: step.id }, String(step.id || "").slice(0, 8)), mark > 0 && h("span", { class: "tag a" }, mark)]
      : [h("code", {}, String(step.id || "").slice(0, 8)), h("span", { class: "warnt" }, step.note || "")];
  const could = /could|heard/i.test(step.how || "");
  return h("li", { key: i, class: could ? "could" : "" }, h("div", { class: "wn" }, could && h("span", { class: "dim" }, "had heard before: "), body, step.note && step.topic && h("span", { class: "tag w" }, step.note)), (step.logs || []).map((log, n) => h("div", { class: "wn warnt", key: `l${n}` }, glyph("WARNING"), ` ${log.message || log.text || ""}`)), kids.length > 0 && h("ul", {}, kids.map((kid, n) => branch(kid, names, n))));
}

const brief = (value) => { const text = typeof value === "string" ? value : JSON.stringify(value); return text === undefined ? "" : text.length > 90 ? `${text.slice(0, 90)}…` : text; };
const contextName = (context) => context ? `${context.instance || context.source || context.name || "?"}${context.class_path ? `, a ${context.class_path.split(".").pop()}` : ""}${context.host ? ` on ${context.host}` : ""}` : "not recorded";

function contextRows(context) {
  const rows = [];
  const walk = (value, name, depth) => {
    if (rows.length > 40) return;
    if (value && typeof value === "object" && !Array.isArray(value) && depth < 2) Object.entries(value).forEach(([key, each]) => walk(each, name ? `${name}.${key}` : key, depth + 1));
    else if (value !== null && value !== "") rows.push([name, typeof value === "string" ? value : JSON.stringify(value)]);
  };
  walk(context || {}, "", 0);
  return h("dl", { class: "facts" }, rows.map(([name, value]) => h("div", { key: name }, h("dt", {}, name), h("dd", {}, value.length > 300 ? `${value.slice(0, 300)}…` : value))));
}

// -- what differed

function differed() {
  const all = list("runs").sort((a, b) => b.begun - a.begun);
  if (all.length < 2) return h("section", { class: "panel pb dim" }, "What differed between two runs is shown here from the second run on.");
  const b = chosen("b") || all[0].id, a = chosen("a") || all[1].id, key = `${a} ${b}`, found = diffs.get(key);
  const read = async () => { diffs.set(key, { loading: true }); changed(); diffs.set(key, await ask("diff", { a, b })); changed(); };
  const pick = (label, value, name) => h("select", { class: "inp", "aria-label": label, value, onchange: (e) => choose({ [name]: e.target.value }) }, all.map((r) => h("option", { key: r.id, value: r.id, selected: r.id === value }, r.id)));
  return h("section", { class: "panel", "aria-label": "What differed" }, h("div", { class: "ph" }, h("h2", {}, "What differed"), pick("The run before", a, "a"), "→", pick("The run after", b, "b"), h("button", { class: "btn", onclick: read }, "Compare"), h("span", { class: "sp" }), h("code", { class: "note hide-s" }, `ether diff ${quoted(a)} ${quoted(b)}`)),
    found && h("div", { class: "pb" }, found.loading ? "The record is being read…" : found.error ? h("p", { class: "res bad" }, found.error) : groups(found)));
}

function groups(found) {
  const names = ["run", "instances", "code", "configuration", "arguments", "packages", "machines", "counts"].filter((name) => found[name] && (!Array.isArray(found[name]) || found[name].length) && Object.keys(found[name]).length);
  if (!names.length) return h("p", {}, "Nothing that was recorded of them differs.");
  return names.map((name) => h("div", { key: name }, h("h3", {}, name), [].concat(Array.isArray(found[name]) ? found[name] : [found[name]]).slice(0, 60).map((change, i) => h("div", { key: i, class: "chg" }, difference(change)))));
}

function difference(change) {
  if (typeof change !== "object" || change === null) return String(change);
  const { name, key, where: place, what, before, after, a, b, lines, diff, text, ...more } = change;
  const title = name || key || place || what || "";
  const listing = lines || diff || text;
  const old = before ?? a, fresh = after ?? b;
  return [h("b", {}, typeof title === "string" ? title : JSON.stringify(title)), old !== undefined && h("code", { class: "del" }, `− ${brief(old)}`), fresh !== undefined && h("code", { class: "add" }, `+ ${brief(fresh)}`),
    listing && h("pre", { class: "tb" }, (Array.isArray(listing) ? listing : String(listing).split("\n")).slice(0, 80).map((line, i) => h("span", { key: i, class: String(line).startsWith("+") ? "add" : String(line).startsWith("-") ? "del" : "" }, `${line}\n`))), old === undefined && fresh === undefined && !listing && h("code", {}, brief(more))];
}

