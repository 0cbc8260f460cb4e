// Numbers, times and sizes as people read them.

export const dash = "—";

export function age(seconds) {
  if (!Number.isFinite(seconds)) return dash;
  const t = Math.max(0, seconds);
  if (t < 60) return `${Math.floor(t)} s`;
  if (t < 3600) return `${Math.floor(t / 60)} min ${Math.floor(t % 60)} s`;
  if (t < 172800) return `${Math.floor(t / 3600)} h ${Math.floor((t % 3600) / 60)} min`;
  return `${Math.floor(t / 86400)} days`;
}

export const took = (s) => !Number.isFinite(s) ? dash : s < 1 ? `${Math.round(s * 1000)} ms` : s < 60 ? `${s.toPrecision(3)} s` : age(s);

const two = (n) => String(n).padStart(2, "0");
export function clock(unix, seconds = true) {
  if (!Number.isFinite(unix)) return dash;
  const d = new Date(unix * 1000);
  return `${two(d.getHours())}:${two(d.getMinutes())}${seconds ? `:${two(d.getSeconds())}` : ""}`;
}
export function day(unix) {
  if (!Number.isFinite(unix)) return dash;
  const d = new Date(unix * 1000), today = new Date().toDateString() === d.toDateString();
  const month = d.toLocaleString("en", { month: "short" });
  return today ? clock(unix) : `${d.getDate()} ${month} ${clock(unix, false)}`;
}

export const count = (n) => Number.isFinite(n) ? Math.round(n).toLocaleString("en-US") : dash;

export function rate(hz) {
  if (!Number.isFinite(hz)) return dash;
  if (hz === 0) return "0 Hz";
  return hz >= 1000 ? `${count(hz)} Hz` : `${hz.toPrecision(hz < 1 ? 2 : 3)} Hz`;
}

export function bytes(n) {
  if (!Number.isFinite(n)) return dash;
  for (const [limit, unit, by] of [[1e3, "B", 1], [1e6, "kB", 1e3], [1e9, "MB", 1e6], [1e12, "GB", 1e9]]) {
    if (n < limit) return `${by === 1 ? Math.round(n) : (n / by).toPrecision(3)} ${unit}`;
  }
  return `${(n / 1e12).toPrecision(3)} TB`;
}

export function number(value) {
  if (typeof value !== "number") return String(value);
  if (Number.isInteger(value) && Math.abs(value) < 1e12) return value.toLocaleString("en-US");
  const size = Math.abs(value);
  if (size !== 0 && (size >= 1e6 || size < 1e-3)) return value.toExponential(3);
  return value.toLocaleString("en-US", { maximumSignificantDigits: 5 });
}

// Fixed digits, so that a number that moves does not jump about.
export const steady = (value, digits) => typeof value === "number" ? value.toFixed(digits) : String(value);
export const digitsOf = (value) => {
  if (typeof value !== "number" || Number.isInteger(value)) return 0;
  const size = Math.abs(value);
  return size >= 1000 ? 1 : size >= 100 ? 2 : size >= 1 ? 3 : 4;
};

// A text for the command line. Names and topics come from the lab: nothing in them may become a command.
export const quoted = (text) => /^[\w.,:+/-]+$/.test(text) ? text : `'${String(text).replaceAll("'", "'\\''")}'`;

export const plural = (n, one, many = `${one}s`) => `${count(n)} ${n === 1 ? one : many}`;
