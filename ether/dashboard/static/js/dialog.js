// Dialogs over the page: the focus goes in, Escape goes out, and the focus returns to where it was.

import { h, render } from "./dom.js";

let back = null, draw = null;
const root = () => document.getElementById("over");

export function open(view) {
  if (!draw) back = document.activeElement;
  draw = view;
  redraw();
  (root().querySelector("[autofocus]") || root().querySelector("button, input"))?.focus();
}

export function close() {
  if (!draw) return;
  draw = null;
  render(root());
  back?.focus?.();
  back = null;
}

export const isOpen = () => draw !== null;

export function redraw() {
  if (!draw) return;
  const { title, body, wide } = draw();
  render(root(), h("div", { class: "veil", onclick: (event) => event.target === event.currentTarget && close() },
    h("div", { class: `dlg${wide ? " wide" : ""}`, role: "dialog", "aria-modal": "true", "aria-label": title, onkeydown: hold },
      h("div", { class: "ph" }, h("h2", {}, title), h("span", { class: "sp" }), h("button", { class: "btn ghost", onclick: close, "aria-label": "Close" }, "Close")),
      h("div", { class: "pb" }, body))));
}

function hold(event) {
  if (event.key !== "Tab") return;
  const all = [...root().querySelectorAll("button, input, a, select, [tabindex='0']")].filter((el) => !el.disabled);
  const end = event.shiftKey ? all[0] : all[all.length - 1];
  if (document.activeElement === end) {
    event.preventDefault();
    (event.shiftKey ? all[all.length - 1] : all[0]).focus();
  }
}
