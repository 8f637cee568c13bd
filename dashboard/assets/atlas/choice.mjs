// Selection, search and filter of points: each is a short text that fits in an address, and that the server parses the
// same way (dashboard/maps/data.py).
//
//   selection   lasso:x0,y0,x1,y1,...   box:x0,y0,x1,y1   region:12   points:3,14,15
//   filter      density:0.2,0.8   group=1,4
// Selected and found points stay bright, others are dimmed; points that a filter excludes are not drawn.

import { DIMMED, HIDDEN } from "./looks.mjs";

/** Corners of the polygon of a lasso or box selection, or null. @param {string} selection */
export function cornersOf(selection) {
  const [kind, rest] = [selection.split(":")[0], selection.slice(selection.indexOf(":") + 1)];
  const v = rest.split(",").map(Number);
  if (v.some((each) => !Number.isFinite(each))) return null;
  if (kind === "lasso" && v.length >= 6 && v.length % 2 === 0) return v;
  if (kind === "box" && v.length === 4) return [v[0], v[1], v[2], v[1], v[2], v[3], v[0], v[3]];
  return null;
}

/**
 * Numbers of `kind:1,2,3`, or null when the selection is of another kind.
 * @param {string} selection @param {string} kind
 */
export function numbersOf(selection, kind) {
  if (!selection.startsWith(`${kind}:`)) return null;
  return selection
    .slice(kind.length + 1)
    .split(",")
    .filter(Boolean)
    .map(Number)
    .filter(Number.isInteger);
}

/**
 * A byte per point, 1 = selected; null without a selection. `data` gives the grid, regions and columns.
 * @param {string} selection @param {AtlasView} data
 */
export async function selected(selection, data) {
  if (!selection) return null;
  const corners = cornersOf(selection);
  if (corners) return data.grid().within(corners);
  const found = new Uint8Array(data.n);
  const points = numbersOf(selection, "points");
  for (const id of points ?? []) if (id >= 0 && id < data.n) found[id] = 1;
  const regions = numbersOf(selection, "region");
  if (!regions) return points ? found : null;
  for (const number of regions) {
    const region = (await data.regions())[number];
    if (!region) continue;
    const levels = await data.column(`level_${region.level}`);
    for (let i = 0; levels && i < levels.length; i++) if (levels[i] === number + 1) found[i] = 1;
  }
  return found;
}

/** A byte per point, 1 = found by a search; null without one. @param {Uint8Array} bits @param {number} n */
export function unpacked(bits, n) {
  const found = new Uint8Array(n);
  for (let i = 0; i < n; i++) found[i] = (bits[i >> 3] >> (i & 7)) & 1;
  return found;
}

/**
 * A byte per point, 1 = passes the filter; null without a valid filter.
 * @param {string} filter @param {AtlasView} data
 */
export async function filtered(filter, data) {
  const match = /^(.+)(:|=)([^:=]+)$/.exec(filter || "");
  if (!match) return null;
  const values = await data.column(match[1]);
  const numbers = match[3].split(",").map(Number);
  if (!values || numbers.some((v) => !Number.isFinite(v))) return null;
  const kept = new Uint8Array(values.length);
  if (match[2] === ":") {
    const [low, high] = numbers;
    for (let i = 0; i < values.length; i++) kept[i] = values[i] >= low && values[i] <= high ? 1 : 0;
  } else {
    const wanted = new Set(numbers);
    for (let i = 0; i < values.length; i++) kept[i] = wanted.has(values[i]) ? 1 : 0;
  }
  return kept;
}

/**
 * Both of two conditions, either of which may be null.
 * @param {Uint8Array | null | undefined} a @param {Uint8Array | null | undefined} b
 */
export function both(a, b) {
  if (!a || !b) return a ?? b;
  const out = new Uint8Array(a.length);
  for (let i = 0; i < a.length; i++) out[i] = a[i] & b[i];
  return out;
}

/**
 * Either of two conditions, the second of which may be null.
 * @param {Uint8Array} a @param {Uint8Array | null} b
 */
export const either = (a, b) => (b ? a.map((value, i) => value | b[i]) : a);

/** Numbers of the points that meet both of two conditions, either of which may be null. @param {number} n
 * @param {Uint8Array | null} a @param {Uint8Array | null} b
 */
export function meeting(n, a, b) {
  /** @type {number[]} */
  const ids = [];
  for (let i = 0; i < n; i++) if ((!a || a[i]) && (!b || b[i])) ids.push(i);
  return ids;
}

/**
 * Final codes from the plain ones: dimmed where not marked, hidden where filtered out.
 * @param {Uint8Array} plain @param {Uint8Array} codes @param {Uint8Array | null} marked
 * @param {Uint8Array | null} kept
 */
export function applied(plain, codes, marked, kept) {
  for (let i = 0; i < plain.length; i++) {
    if (kept && !kept[i]) codes[i] = HIDDEN;
    else if (marked && !marked[i]) codes[i] = plain[i] + DIMMED;
    else codes[i] = plain[i];
  }
}
