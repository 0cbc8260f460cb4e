// Runs: the one that goes on, its trials as they come, a plot of any result against any condition, and all others.

import { h, s } from "./dom.js";
import { age, clock, dash, day, number, plural, took } from "./format.js";
import { close, open } from "./dialog.js";
import { state } from "./glyphs.js";
import { run, stale } from "./model.js";
import { act, ask, changed, list, now, refusal } from "./store.js";
import { choose, chosen, link, say } from "./nav.js";

// One block for each trial: done, done after a repetition, running, held up, still to come.
export function blocks(r, mini = false) {
  const all = r.trials || [];
  if (!all.length || all.length > 400) return h("div", { class: "bar", role: "img", "aria-label": `${r.done} of ${r.planned ?? "an unknown number of"} trials` }, h("i", { style: { width: `${r.planned ? (100 * r.done) / r.planned : 0}%` } }));
  return h("div", { class: `blocks${mini ? " mini" : ""}`, role: "img", "aria-label": `${r.done} of ${r.planned ?? "an unknown number of"} trials done` }, all.map(([n, , tried, counts]) => {
    const going = r.goesOn && r.trial === n;
    const kind = going ? (r.held ? "h" : "n") : counts !== null ? (tried > 1 ? "r" : "d") : "";
    return h("i", { key: n, class: kind, title: `trial ${n}` }, mini ? "" : going ? "▸" : counts !== null ? (tried > 1 ? `${tried}×` : "✓") : n);
  }));
}

const past = new Map();
const AGAIN_MS = 5000; // what could not be answered is asked again
async function fetchRun(id) {
  if (past.has(id)) return;
  past.set(id, { loading: true });
  const found = await ask("run", { run: id });
  past.set(id, found);
  if (found.error) setTimeout(() => { past.delete(id); changed(); }, AGAIN_MS);
  changed();
}

function shownRun() {
  const current = run(), wanted = chosen("run");
  if (!wanted || wanted === current?.id) return current;
  fetchRun(wanted);
  const found = past.get(wanted);
  if (!found || found.loading || found.error) return { id: wanted, missing: found?.error || "is being read…" };
  return { ...found, goesOn: false, held: "", state: found.status, left: null, trial: null };
}

export function runs() {
  const all = list("runs").sort((a, b) => b.begun - a.begun), r = shownRun();
  if (!r && !all.length) return [h("h1", { class: "vh" }, "Runs"), h("section", { class: "panel empty" }, h("b", {}, "No run has begun yet"), h("span", {}, "Runs appear here while they go on, with their trials. These lines begin one:"), h("pre", { class: "codeb" }, "with ether.run(\"dose-response\", compound=\"A\") as run:\n    for trial in run.trials([0.1, 0.3, 1.0]):\n        …"))];
  return [h("h1", { class: "vh" }, "Runs"), r && (r.missing ? h("section", { class: "panel pb" }, `${r.id}: ${r.missing}`) : [head(r), h("div", { class: "two r" }, trials(r), against(r))]), allRuns(all, r)];
}

function head(r) {
  const meta = Object.entries(r.metadata || {}).map(([key, value]) => `${key} ${typeof value === "object" ? JSON.stringify(value) : value}`).join(" · ");
  const figures = [
    ["time left", stale() ? "not known" : r.goesOn ? (r.left === null ? dash : age(r.left)) : dash], ["done at", r.goesOn && r.left !== null && !r.held && !stale() ? clock(now() + r.left, false) : r.ended ? day(r.ended) : dash],
    ["trials", `${r.done} of ${r.planned ?? "?"}`], ["a trial takes", r.trial_s === null ? dash : took(r.trial_s)], ["ran for", age((r.ended ?? now()) - r.begun)],
  ];
  return h("section", { class: "panel live", "aria-label": `Run ${r.id}` }, h("div", { class: "ph" }, h("h2", { class: "rid" }, r.id), state(r.state, stale() && r.goesOn ? `was ${r.state}` : r.state), h("span", { class: "note" }, [`by ${r.owner?.program || "?"}`, meta, `order ${r.order}`].filter(Boolean).join(" · ")), h("span", { class: "sp" }), r.goesOn && buttons(r)),
    r.held && h("div", { class: "pb warnt" }, r.held), r.error && h("div", { class: "pb" }, h("div", { class: "res bad" }, r.error)),
    h("div", { class: "pb" }, h("div", { class: "stat" }, figures.map(([what, value]) => h("div", { key: what }, h("span", {}, what), h("b", {}, value))),
      h("div", { class: "grow from" }, h("span", {}, "from"), r.measured ? `the median of ${plural(r.measured, "trial")} of this run, ${took(r.shortest_s)} to ${took(r.longest_s)}; pauses are not counted` : "no trial is done yet, so nothing is known")), blocks(r)));
}

let asking = "";
function buttons(r) {
  const paused = r.state === "paused";
  const tell = async (verb) => {
    asking = verb;
    changed();
    const answer = await act("run", { do: verb, program: r.owner?.program || "", why: "" });
    asking = "";
    say(answer.ok ? { pause: `${r.id} pauses before its next trial.`, resume: `${r.id} goes on.`, stop: `${r.id} ends before its next trial.` }[verb] : answer.error);
    changed();
  };
  const stop = () => open(() => ({
    title: `Stop ${r.id}`,
    body: [h("p", {}, `It ends where its next trial would begin, as interrupted. ${plural(r.done, "trial")} stay; ether.run(…, resume=True) goes on behind them.`),
      h("div", { class: "row end" }, h("button", { class: "btn", onclick: close }, "Let it go on"), h("button", { class: "btn pri", autofocus: true, onclick: () => { close(); tell("stop"); } }, "Stop the run"))],
  }));
  const why = stale() ? "there is no connection to the session" : refusal() ? refusal() : asking ? "it is being asked" : "";
  return [h("button", { class: `btn${paused ? " pri" : ""}`, disabled: Boolean(why), title: why, onclick: () => tell(paused ? "resume" : "pause") }, paused ? "Go on" : "Pause after this trial"), h("button", { class: "btn", disabled: Boolean(why), title: why, onclick: stop }, "Stop…")];
}

// Conditions and results are one value, or several by name.
const parts = (value, name) => value === null || value === undefined ? {} : typeof value === "object" && !Array.isArray(value) ? value : { [name]: value };
function columns(r) {
  const conditions = new Set(), results = new Set();
  for (const [, condition, , , , , result] of r.trials) {
    Object.keys(parts(condition, "condition")).forEach((key) => conditions.add(key));
    Object.keys(parts(result, "result")).forEach((key) => results.add(key));
  }
  return { conditions: [...conditions].slice(0, 8), results: [...results].slice(0, 8) };
}
const cell = (value) => value === undefined || value === null ? "" : typeof value === "number" ? number(value) : typeof value === "string" ? value : JSON.stringify(value);
const right = (value) => (typeof value === "number" ? "num" : "el");

// Numbers stand at the right, words at the left, and so does what stands above them.
const heading = (r, at, name, key) => (r.trials.map((row) => parts(row[at], name)[key]).some((v) => v !== undefined && v !== null && typeof v !== "number") ? "" : "num");

function trials(r) {
  const { conditions, results } = columns(r);
  const place = (row) => (r.goesOn && row[0] === r.trial ? -1 : row[2] ? 0 : 1);
  const rows = [...r.trials].reverse().filter((row) => row[2] || row[0] === r.trial).sort((a, b) => place(a) - place(b)).slice(0, 300);
  return h("section", { class: "panel live" }, h("div", { class: "ph" }, h("h2", {}, "Trials"), h("span", { class: "note" }, "newest first; grows while it runs"), h("span", { class: "sp" }), h("a", { class: "btn sm", href: `/read/export?${new URLSearchParams({ run: r.id, form: "csv" })}`, download: "" }, "Export CSV")),
    h("div", { class: "tw tall", tabindex: 0, role: "region", "aria-label": "Trials" }, h("table", {}, h("thead", {}, h("tr", {}, h("th", { class: "num", scope: "col" }, "#"), conditions.map((c) => h("th", { key: `c ${c}`, class: heading(r, 1, "condition", c), scope: "col" }, c)), results.map((c) => h("th", { key: `r ${c}`, class: heading(r, 6, "result", c), scope: "col" }, c)), h("th", { class: "num", scope: "col" }, "took"), h("th", { scope: "col" }, "status"))),
      h("tbody", {}, rows.map(([n, condition, tried, counts, open, seconds, result]) => {
        const c = parts(condition, "condition"), v = parts(result, "result"), going = r.goesOn && n === r.trial;
        return h("tr", { key: n, "aria-selected": String(going) }, h("td", { class: "num" }, going ? h("b", {}, n) : n), conditions.map((key) => h("td", { key: `c ${key}`, class: right(c[key]) }, cell(c[key]))), results.map((key) => h("td", { key: `r ${key}`, class: right(v[key]) }, going ? "…" : cell(v[key]))),
          h("td", { class: "num" }, seconds === null ? "" : took(seconds)), h("td", {}, going ? state(r.held ? r.state : "running") : counts !== null ? state("done", tried > 1 ? `done, attempt ${counts}` : "done") : state(open && r.goesOn ? "waiting" : "interrupted", open ? "cut short" : "not done")));
      })))), r.trials_left_out > 0 && h("p", { class: "note pb" }, `${plural(r.trials_left_out, "trial")} more are not listed here`));
}

function against(r) {
  const { conditions, results } = columns(r);
  const ys = [...results, "seconds"], xs = [...conditions, "trial"];
  const y = ys.includes(chosen("y")) ? chosen("y") : ys[0], x = xs.includes(chosen("x")) ? chosen("x") : xs[0], given = r.trials.map(([n, condition]) => (x === "trial" ? n : parts(condition, "condition")[x])).filter((v) => typeof v === "number");
  const wide = given.length > 1 && Math.min(...given) > 0 && Math.max(...given) / Math.min(...given) >= 50, log = chosen("log", wide ? "1" : "0") === "1";
  const at = (n, condition) => (x === "trial" ? n : parts(condition, "condition")[x]);
  // A condition in words has a place for each word, in the order in which they came.
  const words = given.length ? [] : [...new Set(r.trials.map(([n, condition]) => at(n, condition)).filter((v) => v !== undefined && v !== null).map(cell))].slice(0, MOST_WORDS);
  const placed = (v) => (words.length ? words.indexOf(cell(v)) : v);
  const points = r.trials.filter((row) => row[3] !== null).map(([n, condition, tried, , , seconds, result]) => ({ n, again: tried > 1, x: placed(at(n, condition)), y: y === "seconds" ? seconds : parts(result, "result")[y] })).filter((p) => typeof p.x === "number" && typeof p.y === "number" && (words.length ? p.x >= 0 : !log || p.x > 0));
  return h("section", { class: "panel live" }, h("div", { class: "ph" }, pick("Value", ys, y, (v) => choose({ y: v })), h("span", { class: "dim" }, "against"), pick("Condition", xs, x, (v) => choose({ x: v })), h("button", { class: "btn", "aria-pressed": String(log), onclick: () => choose({ log: log ? "0" : "1" }) }, "log"), h("span", { class: "sp" }), h("span", { class: "note hide-s" }, "a dot is a trial, the bar their mean")),
    h("div", { class: "pb" }, points.length ? dots(points, x, y, log && !words.length, words) : h("p", { class: "dim" }, "No trial has numbers of both yet.")));
}

const pick = (label, all, value, onchoose) => h("select", { class: "inp", "aria-label": label, value, onchange: (e) => onchoose(e.target.value) }, all.map((each) => h("option", { key: each, value: each, selected: each === value }, each)));

const MOST_WORDS = 40;
function dots(points, xName, yName, log, words) {
  const W = 620, H = 340, L = 62, B = 44, scale = log ? Math.log10 : (v) => v;
  const range = (values) => { const lo = Math.min(...values), hi = Math.max(...values), pad = (hi - lo || Math.abs(hi) || 1) * 0.07; return [lo - pad, hi + pad]; };
  const [x0, x1] = range(points.map((p) => scale(p.x))), [y0, y1] = range(points.map((p) => p.y));
  const px = (v) => L + ((scale(v) - x0) / (x1 - x0)) * (W - L - 14), py = (v) => H - B - ((v - y0) / (y1 - y0)) * (H - B - 16);
  const groups = new Map();
  for (const p of points) groups.set(p.x, [...(groups.get(p.x) || []), p.y]);
  const xs = [...groups.keys()].sort((a, b) => a - b);
  let last = -99;
  const labelled = xs.filter((v) => px(v) - last > 46 && ((last = px(v)), true));
  const yt = [0, 0.25, 0.5, 0.75, 1].map((f) => y0 + (y1 - y0) * (0.06 + 0.88 * f));
  return s("svg", { class: "dots", viewBox: `0 0 ${W} ${H}`, role: "img", "aria-label": `${yName} against ${xName}, ${points.length} trials` },
    yt.map((v) => s("g", { key: `y${v}` }, s("path", { class: "grid", d: `M${L} ${py(v)}H${W - 10}` }), s("text", { x: L - 8, y: py(v) + 4, "text-anchor": "end" }, number(Number(v.toPrecision(2)))))),
    labelled.map((v) => s("text", { key: `x${v}`, x: px(v), y: H - B + 18, "text-anchor": "middle" }, words.length ? words[v].slice(0, 12) : number(v))), s("text", { x: (L + W) / 2, y: H - 6, "text-anchor": "middle" }, `${xName}${log ? " (log)" : ""}`),
    xs.filter((v) => groups.get(v).length > 1).map((v) => { const m = groups.get(v).reduce((a, b) => a + b, 0) / groups.get(v).length; return s("path", { key: `m${v}`, class: "mean", d: `M${px(v) - 11} ${py(m)}h22` }); }),
    points.map((p) => p.again ? s("path", { key: p.n, class: "dot", d: `M${px(p.x)} ${py(p.y) - 6}l6 6l-6 6l-6 -6z` }, s("title", {}, `trial ${p.n}, repeated: ${number(p.y)}`)) : s("circle", { key: p.n, class: "dot", cx: px(p.x), cy: py(p.y), r: 4.500 }, s("title", {}, `trial ${p.n}: ${number(p.y)}`))));
}

function allRuns(all, shown) {
  return h("section", { class: "panel live" }, h("div", { class: "ph" }, h("h2", {}, "All runs"), h("span", { class: "note" }, "why one ended stands beside it")),
    h("div", { class: "tw", tabindex: 0, role: "region", "aria-label": "All runs" }, h("table", {}, h("thead", {}, h("tr", {}, ["Run", "Status", "Trials", "Began"].map((t) => h("th", { key: t, scope: "col" }, t)), h("th", { class: "num", scope: "col" }, "Took"), h("th", { scope: "col" }, "Why"))),
      h("tbody", {}, all.map((r) => h("tr", { key: r.id, "aria-selected": String(r.id === shown?.id) }, h("td", {}, h("a", { href: link("runs", { run: r.id }) }, h("b", {}, r.id))), h("td", {}, state(r.status, stale() && r.status === "running" ? "was running" : r.status)), h("td", { class: "nw" }, `${r.done} of ${r.planned ?? "?"}`, r.repeated.length ? h("span", { class: "dim" }, ` ${r.repeated.length} repeated`) : ""), h("td", { class: "nw" }, day(r.begun)), h("td", { class: "num" }, age((r.ended ?? now()) - r.begun)), h("td", { class: "whyc" }, r.error)))))));
}
