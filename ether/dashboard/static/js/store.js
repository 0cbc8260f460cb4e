// The state of the page: what the server has told, and what the person has chosen. One WebSocket; a return brings
// everything anew.

export const lab = {
  rows: {}, plots: new Map(), sparks: new Map(), table: null, picture: null,
  live: false, lostAt: null, heardAt: 0, skew: 0, refused: false, everLive: false, may: "look", mayWhy: "it has not been told yet what it may",
};
export const now = () => Date.now() / 1000 + lab.skew;
export const table = (name) => lab.rows[name] || Object.create(null);
export const list = (name) => Object.values(table(name));

const listeners = { rows: [], plots: [], picture: [] };
export const on = (what, listener) => {
  listeners[what].push(listener);
  return () => listeners[what].splice(listeners[what].indexOf(listener), 1);
};
const tell = (what, ...more) => listeners[what].forEach((listener) => listener(...more));
export const changed = () => tell("rows");

const SPARK_POINTS = 120;
const QUIET_MS = 4000;
let socket = null, wait = 250, wishes = "";

export function connect() {
  const url = new URL("/feed", location.href);
  url.protocol = url.protocol.replace("http", "ws");
  const mine = (socket = new WebSocket(url));
  socket.binaryType = "arraybuffer";
  socket.onopen = () => { if (wishes) socket.send(wishes); };
  socket.onmessage = (event) => {
    lab.heardAt = Date.now();
    wait = 250;
    typeof event.data === "string" ? take(JSON.parse(event.data)) : takePicture(event.data);
  };
  socket.onclose = (event) => {
    if (socket !== mine) return;
    lost();
    lab.refused = event.code === 4403;
    setTimeout(connect, (wait = Math.min(5000, wait * 1.7)));
  };
}

function lost() {
  if (lab.live || lab.lostAt === null) lab.lostAt = now();
  lab.live = false;
  changed();
}

// "Live" is earned by messages: one comes at least every second.
setInterval(() => {
  if (lab.live && Date.now() - lab.heardAt > QUIET_MS) { lost(); socket?.close(); }
}, 1000);

function take(message) {
  lab.skew = message.now - Date.now() / 1000;
  lab.live = lab.everLive = true;
  lab.lostAt = null;
  lab.refused = false;
  if (message.whole) lab.rows = {};
  if (message.may) [lab.may, lab.mayWhy] = message.may;
  for (const [name, rows] of Object.entries(message.rows || {})) {
    const known = (lab.rows[name] ||= Object.create(null)); // a topic may be called __proto__
    for (const [key, row] of Object.entries(rows)) {
      if (row === null) delete known[key];
      else {
        known[key] = row;
        if (name === "topics") sparkle(row);
      }
    }
  }
  for (const [key, points] of Object.entries(message.plots || {})) takePoints(key, points);
  if (message.table) lab.table = message.table;
  if (message.rows || message.table || message.may) changed();
  if (message.plots) tell("plots");
}

function sparkle(row) {
  for (const [place, value] of Object.entries(row.numbers)) {
    const key = `${row.topic}\x1f${place}`;
    let points = lab.sparks.get(key);
    if (!points) lab.sparks.set(key, (points = { t: [], v: [] }));
    const last = points.t[points.t.length - 1];
    if (last !== undefined && row.at - last < 0.4) continue;
    points.t.push(row.at);
    points.v.push(typeof value === "number" ? value : null);
    if (points.t.length > SPARK_POINTS) { points.t.shift(); points.v.shift(); }
  }
}

const MOST_POINTS = 60000;
function takePoints(key, { anew, t, v }) {
  let known = lab.plots.get(key);
  if (!known || anew) lab.plots.set(key, (known = { t: [], v: [] }));
  for (let i = 0; i < t.length; i++) { known.t.push(t[i]); known.v.push(v[i]); }
  if (known.t.length > MOST_POINTS) {
    known.t.splice(0, known.t.length - MOST_POINTS);
    known.v.splice(0, known.v.length - MOST_POINTS);
  }
}

function takePicture(buffer) {
  const length = new DataView(buffer).getUint32(0, true);
  const head = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 4, length)));
  const pixels = new Uint16Array(buffer, 4 + length, head.width * head.height);
  const before = lab.picture && lab.picture.head.topic === head.topic ? lab.picture : null;
  const times = before ? [...before.times, Date.now()].filter((at) => Date.now() - at < 3000) : [Date.now()];
  lab.picture = { head, pixels, times };
  tell("picture");
}

// What this page wants to see beside the lists.
export function wish(wanted) {
  const text = JSON.stringify(wanted);
  if (text === wishes) return;
  wishes = text;
  for (const key of [...lab.plots.keys()]) if (!wanted.plotted.includes(key)) lab.plots.delete(key);
  if (socket?.readyState === WebSocket.OPEN) socket.send(text);
}

// What would refuse an action of this browser: "" where nothing does. Buttons say it before somebody presses them.
const RIGHTS = ["look", "call", "act"];
export const refusal = (needed = "act") => (RIGHTS.indexOf(lab.may) >= RIGHTS.indexOf(needed) ? "" : `this browser may not do that: ${lab.mayWhy}`);

// Do something in the lab. Never throws: what went wrong is the answer.
export async function act(action, said = {}) {
  try {
    const answer = await fetch(`/do/${action}`, {
      method: "POST", headers: { "content-type": "application/json", "x-ether": "1" }, body: JSON.stringify(said),
    });
    return await answer.json();
  } catch (error) {
    return { ok: false, error: `the page's program does not answer (${error.message}); whether it was done is not known` };
  }
}

export async function ask(question, said = {}) {
  try {
    const answer = await fetch(`/read/${question}?${new URLSearchParams(said)}`);
    return await answer.json();
  } catch (error) {
    return { error: `the page's program does not answer (${error.message})` };
  }
}
