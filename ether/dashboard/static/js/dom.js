// A small virtual DOM: a view is a function of the state, and `render` changes what differs.
//
// Text is only ever set as text, and attributes as attributes: markup in a name, a value or a log line is shown, never
// read. Inputs keep what is typed: `value` is set only where the view's own value changes.

const SVG = "http://www.w3.org/2000/svg";

function flat(kids, into = []) {
  for (const kid of kids) {
    if (kid === null || kid === undefined || kid === false || kid === true) continue;
    if (Array.isArray(kid)) flat(kid, into);
    else into.push(typeof kid === "object" ? kid : { text: String(kid) });
  }
  return into;
}

export const h = (tag, props, ...kids) => ({ tag, props: props || {}, kids: flat(kids), key: props?.key });
export const s = (tag, props, ...kids) => ({ ...h(tag, props, ...kids), svg: true });

function setProp(el, name, value, before) {
  if (name === "key" || name === "mount") return;
  if (name.startsWith("on")) {
    el.__on ||= {};
    if (!(name in el.__on)) el.addEventListener(name.slice(2), (event) => el.__on[name]?.(event));
    el.__on[name] = value;
  } else if (name === "style") {
    for (const key of Object.keys(before || {})) if (!value || !(key in value)) el.style.removeProperty(key);
    for (const [key, part] of Object.entries(value || {})) {
      if (before?.[key] !== part) el.style.setProperty(key, part);
    }
  } else if (name === "value" || name === "checked" || name === "indeterminate") {
    if (el[name] !== value) el[name] = value ?? "";
  } else if (value === null || value === undefined || value === false) {
    el.removeAttribute(name);
  } else {
    el.setAttribute(name, value === true ? "" : value);
  }
}

function create(v) {
  if (v.text !== undefined) return (v.el = document.createTextNode(v.text));
  const el = v.svg ? document.createElementNS(SVG, v.tag) : document.createElement(v.tag);
  v.el = el;
  children(el, [], v.kids);
  for (const [name, value] of Object.entries(v.props)) {
    if (value !== null && value !== undefined && value !== false) setProp(el, name, value);
  }
  if (v.props.mount) queueMicrotask(() => { if (el.isConnected) v.unmount = el.__unmount = v.props.mount(el); });
  return el;
}

function patch(before, v) {
  const el = (v.el = before.el);
  if (v.text !== undefined) {
    if (before.text !== v.text) el.data = v.text;
    return el;
  }
  for (const name of Object.keys(before.props)) if (!(name in v.props)) setProp(el, name, null, before.props[name]);
  children(el, before.kids, v.kids);
  for (const [name, value] of Object.entries(v.props)) {
    if (before.props[name] !== value || name === "checked") setProp(el, name, value, before.props[name]);
  }
  return el;
}

function discard(v) {
  if (v.text !== undefined) return;
  v.kids.forEach(discard);
  v.el.__unmount?.();
}

function children(el, before, after) {
  const keyed = new Map(), free = [];
  for (const v of before) v.key !== undefined ? keyed.set(v.key, v) : free.push(v);
  const used = new Set();
  let next = 0, place = el.firstChild;
  for (const v of after) {
    let old = v.key !== undefined ? keyed.get(v.key) : free[next++];
    if (old && (old.tag !== v.tag || old.svg !== v.svg || used.has(old))) old = undefined;
    if (old) used.add(old);
    const node = old ? patch(old, v) : create(v);
    if (node === place) place = place.nextSibling;
    else el.insertBefore(node, place);
  }
  for (const v of before) {
    if (used.has(v)) continue;
    discard(v);
    if (v.el.parentNode === el) v.el.remove();
  }
}

// Make the children of an element those that are given.
export function render(el, ...kids) {
  const after = flat(kids);
  if (!el.__kids) el.replaceChildren();
  children(el, el.__kids || [], after);
  el.__kids = after;
}
