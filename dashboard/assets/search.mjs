// The search box in the bar of every page, the menu of the page Search, and the keys that walk its hits.

import { none } from "./dash.mjs";
import { all, byId } from "./dom.mjs";

const here = () => location.pathname.replace(/\/$/, "") === "/search";

/** @param {string} query @param {string} where the dictionary, which stays while one search follows another */
function address(query, where) {
  const given = Object.entries({ q: query, in: where }).filter(([, value]) => value);
  return `/search?${new URLSearchParams(given).toString()}`;
}

const asked = () => new URLSearchParams(here() ? location.search : "");

// The field itself is read: its property lags behind by a key stroke.
export function submit() {
  const field = /** @type {HTMLInputElement} */ (byId("find-box"));
  const query = field.value.trim();
  if (!query) return none();
  field.blur();
  return address(query, asked().get("in") || "");
}

// The box shows the query of the address; on other pages it keeps what was typed.
export function show() {
  return here() ? asked().get("q") || "" : none();
}

/** @param {string} where */
export function filter(where) {
  if (!here() || (where || "") === (asked().get("in") || "")) return none();
  return address(asked().get("q") || "", where || "");
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
