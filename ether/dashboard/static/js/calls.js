// Calls: a form for each method, made from what the instance announces; the answer stays until the next call.

import { h } from "./dom.js";
import { clock, quoted, took } from "./format.js";
import { glyph, state } from "./glyphs.js";
import { instances, session, stale } from "./model.js";
import { act, ask, changed, lab, refusal } from "./store.js";
import { choose, chosen, copy } from "./nav.js";

const described = new Map();
const typed = new Map();
const history = [];
const AGAIN_MS = 5000; // what could not be answered is asked again
let answer = null, busy = false;

async function fetchMethods(instance) {
  const key = `${instance.name} ${instance.pid} ${instance.epoch}`;
  if (described.has(key)) return;
  described.set(key, { loading: true });
  const found = await ask("methods", { instance: instance.name });
  described.set(key, found);
  if (found.error) setTimeout(() => { described.delete(key); changed(); }, AGAIN_MS);
  changed();
}
const methodsOf = (instance) => described.get(`${instance.name} ${instance.pid} ${instance.epoch}`);

export function calls() {
  const all = instances().filter((each) => each.calls > 0).sort((a, b) => a.name.localeCompare(b.name));
  if (!all.length) return [h("h1", { class: "vh" }, "Calls"), h("section", { class: "panel empty" }, h("b", {}, "No instance has a method that can be called"), h("span", {}, "A method with this line above it appears here as a form:"), h("pre", { class: "codeb" }, "@ether_get\ndef set_power(self, mw: float) -> float: …"))];
  if (lab.live) all.forEach(fetchMethods);
  const wanted = chosen("q").toLowerCase();
  const instance = all.find((each) => each.name === chosen("of")) || all[0];
  const listed = methodsOf(instance)?.methods || [];
  const method = listed.find((each) => each.name === chosen("m")) || listed[0];
  return [h("h1", { class: "vh" }, "Calls"), h("div", { class: "two" },
    h("section", { class: "panel", "aria-label": "Methods" }, h("div", { class: "ph" }, h("input", { class: "inp find grow", type: "search", placeholder: "Find a method  /", "aria-label": "Find a method", value: chosen("q"), oninput: (e) => choose({ q: e.target.value }) })),
      h("div", { class: "tl" }, all.map((each) => {
        const found = (methodsOf(each)?.methods || []).filter((m) => !wanted || `${each.name}.${m.name} ${each.class}`.toLowerCase().includes(wanted));
        return found.length > 0 && h("div", { key: each.name }, h("div", { class: "mi" }, glyph(each.shown), each.name, h("span", { class: "dim" }, each.class), each.lease && h("span", { class: "tag w" }, "leased"), each.wrong && h("span", { class: "tag b" }, each.shown)),
          found.map((m) => h("button", { key: m.name, class: "meth", "aria-current": String(each === instance && m === method), onclick: () => { answer = null; choose({ of: each.name, m: m.name }); } }, m.name, h("span", { class: "dim" }, ` ${m.kinds.join(", ")}`))));
      }))),
    h("div", { class: "col" }, method ? form(instance, method) : h("section", { class: "panel pb dim" }, methodsOf(instance)?.error || "The methods are being read…"), past()))];
}

// -- a form

const keyOf = (instance, method, name) => `${instance.name}.${method.name}.${name}`;
const parametersOf = (method) => (Array.isArray(method.described.parameters) ? method.described.parameters : []).filter((p) => !String(p.kind || "").startsWith("var"));

// A schema that allows None beside one other type is that type, and may be left empty.
function schemaOf(parameter) {
  const schema = parameter.schema || {};
  const any = schema.anyOf?.filter((each) => each.type !== "null");
  return any?.length === 1 ? { ...schema, ...any[0] } : schema;
}

function given(instance, method, parameter) {
  const key = keyOf(instance, method, parameter.name);
  if (typed.has(key)) return typed.get(key);
  if (parameter.required || parameter.default === null || parameter.default === undefined) return schemaOf(parameter).type === "boolean" ? false : "";
  return ["string", "boolean"].includes(schemaOf(parameter).type) || schemaOf(parameter).enum ? parameter.default : JSON.stringify(parameter.default);
}

// The value of a field, or what is wrong with it, in words and with the unit.
function read(parameter, text) {
  const schema = schemaOf(parameter), unit = schema.unit ? ` ${schema.unit}` : "";
  if (text === "" && schema.type !== "boolean") return parameter.required ? (schema.type === "string" && !schema.enum ? { value: "" } : { wrong: "a value is needed" }) : { left: true };
  if (schema.enum) return { value: schema.enum.find((each) => String(each) === String(text)) ?? text };
  if (schema.type === "boolean") return { value: Boolean(text) };
  if (schema.type === "string") return { value: String(text) };
  if (schema.type === "number" || schema.type === "integer") {
    const value = Number(text);
    if (!Number.isFinite(value)) return { wrong: `${text} is no number` };
    if (schema.type === "integer" && !Number.isInteger(value)) return { wrong: `${text} is no whole number` };
    const low = schema.minimum ?? schema.exclusiveMinimum, high = schema.maximum ?? schema.exclusiveMaximum;
    if (low !== undefined && (value < low || (schema.minimum === undefined && value === low))) return { wrong: `at least ${low}${unit}` };
    if (high !== undefined && (value > high || (schema.maximum === undefined && value === high))) return { wrong: `at most ${high}${unit}` };
    return { value };
  }
  try { return { value: JSON.parse(text) }; } catch { return Object.keys(schema).length ? { wrong: "this is not JSON: [1, 2] or {\"a\": 1}" } : { value: text }; }
}

function readAll(instance, method) {
  const params = {}, wrong = {};
  for (const p of parametersOf(method)) {
    const text = given(instance, method, p), found = read(p, text);
    if (found.wrong) wrong[p.name] = found.wrong;
    else if (!found.left && (p.required || JSON.stringify(found.value) !== JSON.stringify(p.default))) params[p.name] = found.value;
  }
  return { params, wrong };
}

const python = (value) => value === true ? "True" : value === false ? "False" : value === null ? "None" : Array.isArray(value) ? `[${value.map(python).join(", ")}]` : typeof value === "object" ? `{${Object.entries(value).map(([k, v]) => `${JSON.stringify(k)}: ${python(v)}`).join(", ")}}` : JSON.stringify(value);
const NAME = /^[\p{L}_][\p{L}\p{N}_]*$/u; // an instance may announce anything as the name of a method
const asPython = (instance, method, params) => method.kinds[0] === "save" || ![method.name, ...Object.keys(params)].every((name) => NAME.test(name)) ? `ether.${method.kinds[0]}(${python(instance)}, ${python(method.name)}${Object.keys(params).length ? `, ${python(params)}` : ""})` : `ether.instance(${python(instance)}).${method.name}(${Object.entries(params).map(([k, v]) => `${k}=${python(v)}`).join(", ")})`;
const asCli = (instance, method, params) => ["ether call", quoted(`${instance}.${method.name}`), ...Object.entries(params).map(([k, v]) => quoted(`${k}=${typeof v === "string" ? v : JSON.stringify(v)}`)), "-s", quoted(session().session)].join(" ");

function form(instance, method) {
  const { params, wrong } = readAll(instance, method);
  const why = stale() ? "there is no connection to the session, so nobody would be asked" : refusal("call") ? refusal("call") : busy ? "the call before is not over" : Object.keys(wrong).length ? `${Object.keys(wrong).join(", ")}: ${Object.values(wrong)[0]}` : "";
  const go = () => !why && perform(instance.name, method, params);
  const doc = String(method.described.doc || ""), returns = method.described.returns_annotation;
  const code = asPython(instance.name, method, params);
  return h("section", { class: "panel", key: `${instance.name}.${method.name}`, "aria-label": `Call ${instance.name}.${method.name}`, onkeydown: (e) => e.key === "Enter" && (e.ctrlKey || e.metaKey) && go() },
    h("div", { class: "ph" }, h("h2", { class: "mono" }, `${instance.name}.${method.name}`), h("span", { class: "tag" }, method.kinds.join(", ")), h("span", { class: "sp" }), state(instance.shown, stale() ? `was ${instance.shown}` : instance.shown)),
    h("div", { class: "pb" }, instance.why && h("p", { class: "errl" }, instance.why), doc && h("p", { class: "docs" }, doc), returns && h("p", { class: "dim" }, `Returns ${returns}${method.described.returns?.unit ? `, ${method.described.returns.unit}` : ""}.`),
      parametersOf(method).map((p) => field(instance, method, p, wrong[p.name])), !parametersOf(method).length && h("p", { class: "dim" }, "It takes no arguments."),
      h("div", { class: "row acts2" }, h("button", { class: "btn pri", id: "call", "aria-disabled": String(Boolean(why)), title: why, onclick: go }, busy ? "Calling…" : "Call"), h("span", { class: "dim hide-s" }, "Ctrl+Enter"), h("span", { class: "sp" }), h("button", { class: "btn", onclick: () => copy(code) }, "Copy as Python"), h("button", { class: "btn", onclick: () => copy(asCli(instance.name, method, params)) }, "Copy as CLI")),
      why && !busy && h("p", { class: "dim" }, `Not now: ${why}.`),
      h("pre", { class: "codeb" }, code), answer?.call === `${instance.name}.${method.name}` && shownAnswer(answer)));
}

function field(instance, method, p, wrong) {
  const schema = schemaOf(p), key = keyOf(instance, method, p.name), value = given(instance, method, p), id = `f ${key}`.replaceAll(" ", "-");
  const set = (text) => { typed.set(key, text); changed(); };
  const number = schema.type === "number" || schema.type === "integer", bounded = number && schema.minimum !== undefined && schema.maximum !== undefined;
  const invalid = wrong && value !== "" ? "true" : undefined;
  const input = schema.enum ? h("select", { class: "inp", id, value: String(value), onchange: (e) => set(e.target.value) }, !p.required && value === "" && h("option", { key: "", value: "" }, "—"), schema.enum.map((each) => h("option", { key: String(each), value: String(each), selected: String(each) === String(value) }, String(each))))
    : schema.type === "boolean" ? h("input", { type: "checkbox", id, checked: Boolean(value), onchange: (e) => set(e.target.checked) })
      : h("input", { class: `inp${number ? " numi" : " grow"}`, id, type: "text", inputmode: number ? "decimal" : undefined, value: String(value), autocomplete: "off", spellcheck: "false", "aria-invalid": invalid, "aria-describedby": `${id}-help`, oninput: (e) => set(e.target.value) });
  const limits = bounded ? `${schema.minimum} to ${schema.maximum}` : schema.minimum !== undefined ? `at least ${schema.minimum}` : schema.maximum !== undefined ? `at most ${schema.maximum}` : "";
  const help = [schema.description, !schema.enum && !number && schema.type !== "boolean" && schema.type !== "string" && p.annotation, limits && `${limits}${schema.unit ? ` ${schema.unit}` : ""}`, !p.required && p.default !== undefined && `default ${p.default_is_text ? p.default : JSON.stringify(p.default)}`].filter(Boolean).join(" · ");
  return h("div", { class: "fld", key: p.name }, h("label", { for: id }, p.name, p.required && h("span", { class: "bad", "aria-label": "needed" }, " *")), h("div", {}, h("div", { class: "row" }, input, schema.unit && h("span", { class: "dim" }, schema.unit),
    bounded && h("input", { type: "range", min: schema.minimum, max: schema.maximum, step: schema.type === "integer" ? 1 : (schema.maximum - schema.minimum) / 200, value: value === "" ? schema.minimum : String(value), "aria-label": `${p.name}, slider`, oninput: (e) => set(e.target.value) })),
    h("div", { class: invalid ? "msg" : "help", id: `${id}-help` }, invalid ? wrong : help)));
}

async function perform(instance, method, params) {
  busy = true;
  changed();
  const at = Date.now() / 1000;
  answer = { ...(await act("call", { instance, method: method.name, params, kind: method.kinds[0] })), call: `${instance}.${method.name}` };
  busy = false;
  history.unshift({ at, instance, method, params, answer });
  if (history.length > 50) history.pop();
  changed();
}

const short = (value) => { const text = typeof value === "string" ? value : JSON.stringify(value); return text === undefined ? "" : text.length > 160 ? `${text.slice(0, 160)}…` : text; };
const whole = (value) => (value === null || value === undefined ? "None" : typeof value === "string" ? value : JSON.stringify(value, null, 2));

function shownAnswer(found) {
  return h("div", { class: `res ${found.ok ? "" : "bad"}`, role: "status" }, h("div", { class: "row" }, glyph(found.ok ? "done" : "failed"), h("b", {}, found.ok ? "Answer" : "Error"), h("span", { class: "dim" }, `${found.call} · ${took(found.took_s)}`)),
    h("pre", {}, found.ok ? whole(found.value) : found.error), found.traceback && h("details", {}, h("summary", {}, "Traceback of the instance"), h("pre", { class: "tb" }, found.traceback)));
}

function past() {
  return history.length > 0 && h("section", { class: "panel" }, h("div", { class: "ph" }, h("h2", {}, "Calls from this page"), h("span", { class: "note" }, "also in the record, where there is one")), h("div", { class: "tw", tabindex: 0, role: "region", "aria-label": "Calls from this page" }, h("table", {}, h("thead", {}, h("tr", {}, ["When", "Call", "Answer"].map((t) => h("th", { key: t, scope: "col" }, t)), h("th", { class: "num", scope: "col" }, "Took"), h("th", { scope: "col" }, h("span", { class: "vh" }, "Again")))),
    h("tbody", {}, history.map((each, i) => h("tr", { key: history.length - i }, h("td", {}, clock(each.at)), h("td", { class: "mono wr" }, `${each.instance}.${each.method.name}(${Object.entries(each.params).map(([k, v]) => `${k}=${short(v)}`).join(", ")})`), h("td", { class: "wr" }, glyph(each.answer.ok ? "done" : "failed"), " ", each.answer.ok ? short(each.answer.value) : each.answer.error), h("td", { class: "num" }, took(each.answer.took_s)), h("td", {}, h("button", { class: "btn sm ghost", disabled: Boolean(stale() || refusal("call")) || busy, onclick: () => perform(each.instance, each.method, each.params) }, "Again"))))))));
}
