// Where the person is: the view and what is chosen in it, all of it in the address.

import { changed } from "./store.js";

export const VIEWS = ["overview", "values", "calls", "runs", "record", "logs", "lab"];

export function place() {
  const [view, query = ""] = decodeHash().split("?");
  return { view: VIEWS.includes(view) ? view : "overview", of: new URLSearchParams(query) };
}
const decodeHash = () => location.hash.slice(1);

export const link = (view, of = {}) => {
  const query = new URLSearchParams(Object.entries(of).filter(([, value]) => value !== undefined && value !== null && value !== "")).toString();
  return `#${view}${query ? `?${query}` : ""}`;
};

export function go(view, of = {}) { location.hash = link(view, of); }

// Change what is chosen in this view, without a step in the browser's history.
export function choose(of) {
  const here = place();
  for (const [key, value] of Object.entries(of)) value === undefined || value === "" || value === null ? here.of.delete(key) : here.of.set(key, value);
  history.replaceState(null, "", link(here.view, Object.fromEntries(here.of)));
  changed();
}

export const chosen = (key, otherwise = "") => place().of.get(key) ?? otherwise;

let saying = 0;
export function say(text) {
  const el = document.getElementById("say");
  el.textContent = text;
  el.classList.add("on");
  clearTimeout(saying);
  saying = setTimeout(() => el.classList.remove("on"), 4500);
}

export async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
    say("Copied.");
  } catch {
    say(`This browser copies nothing from here: ${text}`);
  }
}
