// The search box in the bar of every page, the filters of the page Search, and the keys that walk its hits.

import { none } from "./dash.mjs";
import { all, byId } from "./dom.mjs";

const FILTERS = ["in", "d", "s", "region", "kind"];
const here = () => location.pathname.replace(/\/$/, "") === "/search";

/** @param {string} query @param {Record<string, string>} filters */
function address(query, filters) {
  const given = Object.entries({ q: query, ...filters }).filter(([, value]) => value);
  return `/search?${new URLSearchParams(given).toString()}`;
}

// Filters stay while one search follows another.
function current() {
  const asked = new URLSearchParams(here() ? location.search : "");
  return Object.fromEntries(FILTERS.map((name) => [name, asked.get(name) || ""]));
}

// The field itself is read: its property lags behind by a key stroke.
export function submit() {
  const field = /** @type {HTMLInputElement} */ (byId("find-box"));
  const query = field.value.trimStart(); // a space at the end counts
  if (!query) return none();
  field.blur();
  return address(query, current());
}

// The box shows the query of the address; on other pages it keeps what was typed.
export function show() {
  return here() ? new URLSearchParams(location.search).get("q") || "" : none();
}

/** @param {...string} values */
export function filter(...values) {
  if (!here()) return none();
  const chosen = Object.fromEntries(FILTERS.map((name, i) => [name, values[i] || ""]));
  const now = current();
  if (FILTERS.every((name) => chosen[name] === now[name])) return none();
  return address(new URLSearchParams(location.search).get("q") || "", chosen);
}

/** Focus the next or the previous hit; Enter opens it, as it opens any link. @param {number} by */
export function step(by) {
  const hits = all("a.wb-hit");
  if (!here() || !hits.length) return false;
  const at = hits.indexOf(/** @type {HTMLElement} */ (document.activeElement));
  const next = at < 0 ? (by > 0 ? 0 : hits.length - 1) : Math.min(Math.max(at + by, 0), hits.length - 1);
  hits[next].focus();
  hits[next].scrollIntoView({ block: "nearest" });
  return true;
}
