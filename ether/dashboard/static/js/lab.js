// The lab: the safe state for all, machines, members, leases, and what people did on this page.

import { h } from "./dom.js";
import { age, bytes, clock, dash, day, plural } from "./format.js";
import { glyph, state } from "./glyphs.js";
import { instances, programs, session, stale } from "./model.js";
import { act, list, now, refusal, table } from "./store.js";
import { open } from "./dialog.js";
import { copy, say } from "./nav.js";
import { askSafe, guarded } from "./safe.js";

export function labView() {
  return [h("h1", { class: "vh" }, "Lab"), safety(), machines(), h("div", { class: "two m" }, members(), h("div", { class: "col" }, leases(), people()))];
}

function safety() {
  const devices = guarded(), held = instances().filter((each) => each.safe);
  const gone = devices.filter((m) => !["ready", "offline", "hung"].includes(m.state));
  const last = list("actions").filter((a) => a.action === "safe").sort((a, b) => b.time - a.time)[0];
  const serve = async () => { const answer = await act("serve"); say(answer.ok ? "The instances serve again; the devices stay as they are." : answer.error); };
  return h("section", { class: "panel safep", "aria-label": "Safe state" }, h("div", { class: "pb row beside" }, h("button", { class: "btn safe huge", "aria-disabled": String(Boolean(refusal())), title: refusal(), onclick: askSafe }, "Make the lab safe"),
    h("div", { class: "grow" }, h("b", {}, devices.length ? `Calls the safe state of ${devices.map((m) => m.name).join(", ")}, all at once.` : "No instance of this session has a safe state."), gone.map((m) => h("p", { class: "bad", key: m.name }, glyph("failed"), ` ${m.name} cannot be reached: switch it off by hand.`)),
      held.length > 0 && h("p", { class: "warnt" }, glyph("safe"), ` ${held.map((m) => m.name).join(", ")} hold${held.length === 1 ? "s" : ""} it now, and refuse${held.length === 1 ? "s" : ""} what would move something. `, h("button", { class: "btn sm", disabled: Boolean(stale() || refusal()), title: refusal(), onclick: serve }, "Let them serve again")),
      last && h("p", { class: "dim" }, `Last pressed here ${day(last.time)} by ${last.by}, ${last.from}: ${last.became}.`))));
}

function machines() {
  const healths = table("health"), hosts = new Map();
  for (const m of [...instances(), ...programs()]) if (m.host) hosts.set(m.host, [...(hosts.get(m.host) || []), m]);
  const rows = [...hosts.entries()].map(([host, all]) => {
    const agent = all.find((m) => m.kind === "agent"), own = healths[""]?.host === host ? healths[""] : null;
    return { host, count: all.filter((m) => m.kind === "instance").length, health: (agent && healths[agent.name]) || own, role: [session().host === host && "leads the session", agent && "agent", session().here === host && "this page"].filter(Boolean).join(", ") };
  });
  return h("section", { class: "panel live" }, h("div", { class: "ph" }, h("h2", {}, "Machines"), h("span", { class: "note" }, "agents tell every 10 s; of others nothing is known")),
    h("div", { class: "tw", tabindex: 0, role: "region", "aria-label": "Machines" }, h("table", {}, h("thead", {}, h("tr", {}, h("th", { scope: "col" }, "Machine"), h("th", { scope: "col" }, "Role"), ["Instances", "Load", "°C", "Memory free", "Disk free", "Clock ahead", "Told"].map((t) => h("th", { key: t, class: "num", scope: "col" }, t)))),
      h("tbody", {}, rows.map(({ host, count: n, health: x, role }) => h("tr", { key: host }, h("td", {}, h("b", {}, host)), h("td", { class: "dim" }, role || "—"), h("td", { class: "num" }, n), h("td", { class: "num" }, x?.load == null ? dash : `${x.load.toFixed(2)} of ${x.cpus}`), h("td", { class: "num" }, x?.temperature_c == null ? dash : x.temperature_c > 70 ? h("span", { class: "tag w" }, `${Math.round(x.temperature_c)} warm`) : Math.round(x.temperature_c)), h("td", { class: "num" }, x?.memory_mb == null ? dash : `${bytes(x.memory_mb * 1048576)} of ${bytes(x.memory_total_mb * 1048576)}`), h("td", { class: "num" }, x?.disk_mb == null ? dash : bytes(x.disk_mb * 1048576)), h("td", { class: "num" }, x?.clock_ahead_s == null ? dash : `${(x.clock_ahead_s * 1000).toFixed(1)} ± ${(x.clock_error_s * 1000).toFixed(1)} ms`), h("td", { class: "num dim" }, x?.time ? `${age(now() - x.time)} ago` : dash)))))));
}

function members() {
  const all = [...programs()].sort((a, b) => a.name.localeCompare(b.name));
  const anotherLink = async (may) => {
    const answer = await act("link", { may });
    if (!answer.ok) return say(answer.error);
    const link = new URL(answer.path, location.href).href;
    copy(link);
    if (answer.code) open(() => ({ title: "Another browser", body: [h("p", {}, may === "look" ? "It may look, and nothing else." : "It may do what this one may."), h("p", {}, "Open this link there, or type the code at ", h("b", {}, new URL("/pair", location.href).href), ". Either opens one browser, once, within ten minutes; a wrong code ends it."), h("pre", { class: "codeb" }, answer.code), h("pre", { class: "codeb" }, link)] }));
  };
  const linkFor = (may, text) => h("button", { class: "btn sm", disabled: Boolean(refusal()), onclick: () => anotherLink(may), title: refusal() || "A link that opens this page in one more browser, once" }, text);
  return h("section", { class: "panel live" }, h("div", { class: "ph" }, h("h2", {}, "Members"), h("span", { class: "note" }, "programs and agents; instances are on the overview"), h("span", { class: "sp" }), linkFor("act", "Link for another browser"), linkFor("look", "…that only looks")),
    h("div", { class: "tw", tabindex: 0, role: "region", "aria-label": "Members" }, h("table", {}, h("thead", {}, h("tr", {}, ["Who", "What", "From", "State"].map((t) => h("th", { key: t, scope: "col" }, t)), h("th", { class: "num", scope: "col" }, "For"))), h("tbody", {}, all.map((m) => h("tr", { key: m.name }, h("td", {}, h("b", {}, m.name), m.name === session().page && h("span", { class: "tag a" }, "this page")), h("td", { class: "dim" }, m.name === session().program ? "leads the session" : m.kind), h("td", {}, m.host), h("td", {}, state(m.state, stale() ? `was ${m.state}` : m.state)), h("td", { class: "num" }, age(now() - m.since))))))));
}

function leases() {
  const leased = instances().filter((each) => each.lease);
  return h("section", { class: "panel live" }, h("div", { class: "ph" }, h("h2", {}, "Leases"), h("span", { class: "note" }, "who has an instance for itself")), leased.length ? h("div", { class: "tw", tabindex: 0, role: "region", "aria-label": "Leases" }, h("table", {}, h("thead", {}, h("tr", {}, ["Instance", "Held by", "Why"].map((t) => h("th", { key: t, scope: "col" }, t)))), h("tbody", {}, leased.map((m) => h("tr", { key: m.name }, h("td", {}, h("b", {}, m.name)), h("td", {}, m.lease.program || m.lease.name || "?"), h("td", {}, m.lease.reason || "")))))) : h("p", { class: "pb dim" }, `None: ${plural(instances().length, "instance")} serve everybody.`));
}

const told = (a) => a.action === "call" ? `called ${a.said.instance}.${a.said.method}(${Object.entries(a.said.params || {}).map(([k, v]) => `${k}=${JSON.stringify(v)}`).join(", ")})` : a.action === "safe" ? "made the lab safe" : a.action === "serve" ? "let the instances serve again" : a.action === "run" ? `told the run to ${a.said.do}` : a.action;

function people() {
  const all = list("actions").sort((a, b) => b.time - a.time);
  return h("section", { class: "panel" }, h("div", { class: "ph" }, h("h2", {}, "What people did"), h("span", { class: "note" }, session().recorders?.length ? "on this page; also in the record" : "on this page; nothing is recorded")), all.length ? h("div", { class: "tw tall", tabindex: 0, role: "region", "aria-label": "What people did" }, h("table", {}, h("thead", {}, h("tr", {}, ["When", "Who", "What"].map((t) => h("th", { key: t, scope: "col" }, t)))), h("tbody", {}, all.map((a) => h("tr", { key: `${a.time}` }, h("td", {}, clock(a.time)), h("td", {}, h("b", {}, a.by), h("div", { class: "dim nw" }, a.from)), h("td", { class: "wr" }, told(a), a.became !== "done" && h("div", { class: "bad" }, a.became))))))) : h("p", { class: "pb dim" }, "Nothing yet."));
}
