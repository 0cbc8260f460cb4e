// Values: every topic with its last value, its rate and its age; plots of the numbers that are ticked; the newest image.

import { h } from "./dom.js";
import { age, bytes, count, digitsOf, number, plural, rate, steady } from "./format.js";
import { silentFor, stale, topics } from "./model.js";
import { lab, list, table, wish } from "./store.js";
import { choose, chosen, link, say } from "./nav.js";
import { picturePanel } from "./picture.js";
import { plotPanel, windowS } from "./plot.js";
import { spark } from "./spark.js";

const BETWEEN = "\x1f", AND = "\x1e";
const MOST_PLOTTED = 8, MOST_ROWS = 250, FIELDS = 6;
export const SIGNALS = ["--s1", "--s2", "--s3", "--s4"];

export const keyOf = (topic, place) => `${topic}${BETWEEN}${place}`;
export const nameOf = (key) => key.split(BETWEEN).filter(Boolean).join(" · ");
export const topicOf = (key) => key.split(BETWEEN)[0];
const placeOf = (key) => key.split(BETWEEN)[1] || "";
export const valueOf = (key) => table("topics")[topicOf(key)]?.numbers[placeOf(key)];

// What is plotted: what was ticked, or the topics that a link names; at first the first number that moves.
export function plotted() {
  const said = chosen("p", null);
  if (said !== null) return said === "none" ? [] : said.split(AND).filter(Boolean).flatMap(keysOf).slice(0, MOST_PLOTTED);
  const moving = topics().filter((t) => Object.keys(t.numbers).length && t.hz > 0);
  const first = moving.find((t) => "" in t.numbers) || moving[0];
  return first ? [keyOf(first.topic, Object.keys(first.numbers)[0])] : [];
}

const keysOf = (said) => said.includes(BETWEEN) ? [said] : Object.keys(table("topics")[said]?.numbers ?? {}).map((place) => keyOf(said, place));

function tick(key) {
  const now_ = plotted(), on = now_.includes(key);
  if (!on && now_.length >= MOST_PLOTTED) return say(`At most ${MOST_PLOTTED} numbers are plotted at a time.`);
  const next = on ? now_.filter((each) => each !== key) : [...now_, key];
  choose({ p: next.length ? next.join(AND) : "none" });
}

export const untick = (key) => plotted().includes(key) && tick(key);

export function shownTopic() {
  const wanted = chosen("of");
  return table("topics")[wanted] || topics().find((t) => t.picture) || null;
}

export function wishes() {
  const topic = shownTopic();
  return { plotted: plotted(), window_s: windowS(), pixels: Math.min(2000, Math.round(innerWidth * 0.7)), picture: topic?.picture ? topic.topic : "", table: topic && !topic.picture ? topic.topic : "" };
}

export function values() {
  const all = topics();
  if (!all.length) return [h("h1", { class: "vh" }, "Values"), h("section", { class: "panel empty" }, h("b", {}, "No topic has carried a message yet"), h("span", {}, "Topics appear here with their first message, also those of programs that know nothing of Ether."), h("pre", { class: "codeb" }, "ether topic pub temperature 21.5"))];
  wish(wishes());
  const topic = shownTopic();
  return [h("h1", { class: "vh" }, "Values"), h("div", { class: "two" }, listed(all, topic), h("div", { class: "vals" }, h("div", { class: "col" }, plotPanel(plotted())), h("div", { class: "col" }, topic?.picture ? picturePanel(topic) : topic ? tablePanel(topic) : null)))];
}

function listed(all, shown) {
  const wanted = chosen("q").toLowerCase(), marked = plotted(), open = chosen("x");
  const found = all.filter((t) => !wanted || `${t.topic} ${t.by}`.toLowerCase().includes(wanted));
  const rows = [];
  for (const t of found) {
    if (rows.length >= MOST_ROWS) break;
    const places = Object.keys(t.numbers), some = open === t.topic ? places : places.slice(0, FIELDS);
    if (!places.length) rows.push(row(t, null, marked, shown));
    for (const place of some) rows.push(row(t, place, marked, shown));
    const more = places.length - some.length + t.left_out;
    if (more > 0) rows.push(h("div", { class: "ti more", key: `more ${t.topic}` }, h("span"), places.length > some.length ? h("button", { class: "btn sm ghost", onclick: () => choose({ x: t.topic }) }, `${count(more)} more numbers of ${t.topic}`) : h("span", { class: "dim" }, `${count(more)} more numbers of ${t.topic} are in its messages, and not followed`)));
  }
  const rest = found.length - new Set(rows.map((r) => r.props["data-topic"]).filter(Boolean)).size;
  return h("section", { class: "panel live", "aria-label": "Topics" }, h("div", { class: "ph" }, h("input", { class: "inp find grow", type: "search", placeholder: `Find among ${plural(all.length, "topic")}  /`, "aria-label": "Find topics", value: chosen("q"), oninput: (e) => choose({ q: e.target.value }) }), h("span", { class: "note" }, "tick to plot")),
    h("div", { class: "tl", tabindex: 0, role: "region", "aria-label": "List of topics" }, rows, !rows.length && h("p", { class: "empty" }, "No topic is called that."), rest > 0 && rows.length >= MOST_ROWS && h("p", { class: "note pb" }, `${plural(rest, "more topic")}: the field above finds them.`), list("session")[0]?.left_out > 0 && h("p", { class: "note pb" }, `${count(list("session")[0].left_out)} messages on further topics are not followed.`)));
}

function row(t, place, marked, shown) {
  const key = place === null ? "" : keyOf(t.topic, place), at = marked.indexOf(key), quiet = silentFor(t), value = place === null ? null : t.numbers[place];
  const name = place ? h("span", {}, t.topic, h("span", { class: "dim" }, ` · ${place}`)) : t.topic;
  const text = place === null ? t.text || "empty" : value === undefined ? "" : typeof value === "number" ? steady(value, digitsOf(value)).replace(/\B(?=(\d{3})+(?!\d))(?<!\.\d*)/g, ",") : value;
  const more = t.problem ? h("span", { class: "bad" }, `cannot be read: ${t.problem}`) : stale() ? "rate not known" : quiet ? h("span", { class: t.was_hz ? "bad" : "" }, `silent ${age(quiet)}`) : `${rate(t.hz)} · ${t.type}`;
  return h("div", { class: `ti${shown === t ? " on" : ""}`, key: `${t.topic}${BETWEEN}${place ?? ""}`, "data-topic": t.topic },
    place === null ? h("span") : h("input", { type: "checkbox", checked: at >= 0, "aria-label": `Plot ${nameOf(key)}`, onchange: () => tick(key) }),
    h("div", { class: "nm0" }, h("button", { class: "el nmb", title: t.topic, onclick: () => choose({ of: t.topic }) }, name), h("div", { class: "sub el" }, t.by || "(a program without Ether)", " · ", more, t.dropped ? h("span", { class: "warnt" }, ` · ${count(t.dropped)} not drawn`) : "")),
    place === null ? h("span") : spark(key, at >= 0 ? SIGNALS[at % 4] : "--faint"),
    h("div", { class: "num vv" }, h("a", { class: `v${quiet || stale() ? " old" : ""}${typeof value === "string" ? " warnt" : ""}`, href: link("record", { why: t.id || t.topic }), title: "Where does this come from?" }, text)));
}

function tablePanel(t) {
  const found = lab.table?.topic === t.topic ? lab.table : null, quiet = silentFor(t);
  return h("section", { class: "panel live", "aria-label": `Newest value of ${t.topic}` }, h("div", { class: "ph" }, h("h2", { class: "el" }, t.topic), h("span", { class: "tag" }, t.type), h("span", { class: "sp" }), h("span", { class: "note" }, stale() ? "rate not known" : quiet ? `silent ${age(quiet)}` : `${rate(t.hz)} · ${bytes(t.bytes_per_s)}/s`, " · newest")),
    found?.rows.length ? h("div", { class: "tw tall", tabindex: 0, role: "region", "aria-label": `Fields of ${t.topic}` }, h("table", {}, h("tbody", {}, found.rows.map(([name, text, type], i) => h("tr", { key: i }, h("td", { class: "dim" }, name), h("td", { class: "num" }, h("b", {}, /^-?[\d.e+-]+$/.test(text) ? number(Number(text)) : text), ["nan", "inf", "-inf"].includes(text) && h("span", { class: "tag w" }, "not a number")), h("td", { class: "dim" }, type)))))) : h("p", { class: "pb", title: t.text }, h("b", {}, t.text || "empty")), found && found.of > found.rows.length && h("p", { class: "note pb" }, `${found.rows.length} of ${count(found.of)} entries are shown.`));
}
