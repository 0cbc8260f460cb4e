// What the rows mean together: one state for each instance, what is wrong, how the run and the record stand.

import { lab, list, now, table } from "./store.js";
import { age } from "./format.js";

export const session = () => table("session").session || {};
// Why nothing on the page is of this moment; "" while everything is.
export function stale() {
  if (!lab.live) return "page";
  return session().offline_since ? "broker" : "";
}
export const staleSince = () => (lab.live ? session().offline_since : lab.lostAt);

const ORDER = ["failed", "error", "lost", "hung", "offline", "restarting", "starting", "stopped", "busy", "ready"];
const WRONG = new Set(["failed", "error", "lost", "hung", "offline"]);

export function instances() {
  const beats = table("beats");
  return list("members").filter((m) => m.kind === "instance").map((m) => {
    const beat = beats[m.name] || {};
    const state = m.state === "ready" && beat.busy ? "busy" : m.state;
    return { ...m, beat, shown: state, wrong: WRONG.has(state) || Boolean(m.safe), why: why(m) };
  }).sort((a, b) => Number(b.wrong) - Number(a.wrong) || (a.wrong ? ORDER.indexOf(a.shown) - ORDER.indexOf(b.shown) : 0) || a.name.localeCompare(b.name, "en", { numeric: true }));
}

function why(member) {
  if (member.safe) return `safe state: ${member.safe.why}`;
  if (member.error) return member.error;
  return member.offline?.why || "";
}

export const sinceOf = (m) => (m.safe?.since ?? m.offline?.since ?? m.since);
export const wrong = () => instances().filter((each) => each.wrong);
export const doing = (each) => {
  if (stale()) return "not known";
  if (each.beat.busy) return `${each.beat.busy} ${each.beat.busy_s < 1 ? "" : age(each.beat.busy_s)}`.trim();
  if (each.lease) return `leased by ${each.lease.program || each.lease.name || "another program"}`;
  return each.shown === "ready" ? "idle" : each.shown === "offline" ? "device away" : "";
};

export const programs = () => list("members").filter((m) => m.kind !== "instance");

// -- topics

export const topics = () => list("topics").sort((a, b) => a.topic.localeCompare(b.topic, "en", { numeric: true }));
// A topic is silent when it was regular, and nothing has come for several of its intervals.
export function silentFor(topic) {
  const quiet = now() - topic.at;
  return topic.hz === 0 && quiet > 3 ? quiet : 0;
}

// -- the run

export function run() {
  const found = table("run").run;
  if (!found) return null;
  // A program that was killed could not say that its run has ended.
  const program = found.owner?.program, lives = Boolean(table("members")[program]) || (program === session().program && session().led);
  const goesOn = found.status === "running" && (lives || Boolean(stale()));
  const held = found.held_up_by || "";
  const state = !goesOn ? (found.status === "running" ? "aborted" : found.status) : held.startsWith("paused") ? "paused" : held ? "suspended" : "running";
  let left = found.left_s;
  if (left !== null && found.trial !== null && found.trial !== undefined) left = Math.max(0, left - Math.min(found.trial_s ?? 0, now() - found.last));
  return { ...found, goesOn, held, state, left };
}

// -- the record

export function proof() {
  const proofs = list("proof");
  if (!proofs.length) return null;
  const gaps = proofs.flatMap((p) => p.gaps || []);
  const sum = (key) => proofs.reduce((total, p) => total + (Number(p[key]) || 0), 0);
  return {
    proofs, gaps, durable: sum("durable"), total: sum("total"), waiting: sum("waiting"), duplicates: sum("duplicates"),
    problem: proofs.map((p) => p.problem).filter(Boolean).join("; "),
    missing: gaps.reduce((total, gap) => total + (Number(gap.count) || (Number(gap.last) - Number(gap.first) + 1) || 0), 0),
    forecast: proofs.map((p) => p.forecast).filter(Boolean).join("; "),
  };
}
