// The safe state for all: one press, one confirmation; then each device answers by itself.

import { h } from "./dom.js";
import { glyph } from "./glyphs.js";
import { act, list, refusal } from "./store.js";
import { say } from "./nav.js";
import { close, open, redraw } from "./dialog.js";
import { stale } from "./model.js";

export const guarded = () => list("members").filter((m) => m.kind === "instance" && m.safe_state);
const LIVES = new Set(["ready", "offline", "hung"]);

let answers = null, error = "", asked = false;

export function askSafe() {
  if (refusal()) return say(`Nobody was asked: ${refusal()}. Switch off by hand what has to be off.`);
  answers = null;
  error = "";
  asked = false;
  open(view);
}

function view() {
  const devices = guarded();
  if (answers || error) return { title: "Safe state", body: result(devices) };
  const gone = devices.filter((m) => !LIVES.has(m.state));
  return {
    title: "Make the lab safe",
    body: [
      devices.length
        ? h("p", {}, "Every instance with a safe state makes its calls now, ahead of everything that waits, and refuses what would move something until it is let go on.")
        : h("p", {}, "No instance of this session has a safe state, so there is nothing that this button could call. safe_state: in the registry gives a class one."),
      stale() && h("p", { class: "res bad" }, "There is no connection now: the calls would reach nobody. Instances whose controllers are silent make themselves safe."),
      h("ul", { class: "plain" }, devices.map((m) => h("li", { key: m.name }, glyph(m.state), h("b", {}, m.name), h("code", {}, m.safe_state.join(", "))))),
      gone.map((m) => h("p", { class: "bad", key: `gone ${m.name}` }, glyph("failed"), ` ${m.name} cannot be reached: switch it off by hand.`)),
      h("div", { class: "row end" },
        h("button", { class: "btn", onclick: close }, "Leave it as it is"),
        h("button", { class: "btn safe", autofocus: true, disabled: asked || !devices.length, onclick: press }, asked ? "Asking…" : "Make safe now")),
    ],
  };
}

async function press() {
  asked = true;
  redraw();
  const answer = await act("safe");
  answers = answer.ok ? answer.answers : null;
  error = answer.ok ? "" : answer.error;
  redraw();
}

function result(devices) {
  const rows = answers || Object.fromEntries(devices.map((m) => [m.name, { safe: false, why: error, calls: m.safe_state }]));
  return [
    error && h("p", { class: "res bad" }, error),
    h("ul", { class: "plain answers" }, Object.entries(rows).map(([name, each]) => h("li", { key: name, class: each.safe ? "ready" : "failed" },
      glyph(each.safe ? "done" : "failed"), h("b", {}, name), each.safe ? h("span", {}, "safe: ", each.calls.join(", ")) : h("span", {}, h("b", {}, "NOT safe: "), each.why)))),
    h("div", { class: "row end" }, h("button", { class: "btn pri", onclick: close, autofocus: true }, "Close")),
  ];
}
