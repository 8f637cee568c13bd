// Addresses that follow the state of a page, and keyboard shortcuts. Callbacks in Python refer to these functions by name.

import { none, setProps } from "./dash.mjs";
import { all, byId, under } from "./dom.mjs";
import { step } from "./search.mjs";
import { current, flip } from "./theme.mjs";

/**
 * Replace (or push) the address without asking the server for a page.
 * @param {string} path @param {Properties} query @param {boolean} [push]
 */
export function show(path, query, push) {
  const set = Object.entries(query).filter(([, value]) => value !== null && value !== undefined && value !== "");
  const given = set.map(([name, value]) => [name, String(value)]);
  const search = new URLSearchParams(given).toString();
  const address = path + (search ? `?${search}` : "");
  if (address === location.pathname + location.search) return none();
  history[push ? "pushState" : "replaceState"](null, "", address);
  return none();
}

/** @param {string} name */
const onPage = (name) => location.pathname.split("/")[1] === name;

/** @param {number | null} clicks */
export function scheme(clicks) {
  if (!clicks) return [current(), current()];
  const next = flip();
  window.dispatchEvent(new PopStateEvent("popstate")); // informs the router of addresses that `show` has set
  return [next, next];
}

/** @param {string | null} pathname */
export function navigation(pathname) {
  const page = (pathname || "/").split("/")[1];
  all(".wb-nav-link, .wb-brand").forEach((link) => {
    const here = link.getAttribute("href")?.split("/")[1] === page;
    if (here) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  });
  foldPages();
  return page;
}

/** Close the menus of the bar, but for a click or a focus inside. @param {Event} [event] */
function foldPages(event) {
  for (const menu of all(".wb-menu[open]"))
    if (!(event?.target instanceof Node && menu.contains(event.target))) menu.removeAttribute("open");
}
document.addEventListener("click", foldPages);
document.addEventListener("focusin", foldPages);
document.addEventListener("keydown", (event) => {
  if (event.key !== "Escape") return;
  if (under(event, ".wb-menu[open]")) all(".wb-menu[open] > summary")[0].focus();
  foldPages();
});

// The list marks the feature that is shown, however it was reached: also once its row is loaded.
let marked = "";
/** @param {number} index */
function markFeature(index) {
  marked = String(index);
  window.dash_ag_grid.getApiAsync("feature-grid").then((grid) => {
    const mark = () => {
      const row = grid.getRowNode(marked);
      if (row && !row.isSelected()) row.setSelected(true, true);
    };
    mark();
    if (grid.workbenchMarks) return;
    grid.workbenchMarks = true;
    grid.addEventListener("modelUpdated", mark);
  });
}

/** @param {{ features: string, index: number } | null} state @param {string} text @param {number[] | null} range */
export function featureAddress(state, text, range) {
  if (!state || !onPage("feature")) return none();
  markFeature(state.index);
  const whole = !range || (range[0] <= -6 && range[1] >= 0);
  const path = `/feature/${encodeURIComponent(state.features)}/${state.index}`;
  const moved = /^\/feature\/[^/]+\/\d+$/.test(location.pathname) && location.pathname !== path;
  return show(path, { q: text, d: whole ? "" : range.join(",") }, moved);
}

/** @param {string} text @param {number[] | null} range */
export function filterFeatures(text, range) {
  const model = {};
  if (text) model.label = { filterType: "text", type: "contains", filter: text };
  if (range && (range[0] > -6 || range[1] < 0)) {
    const low = range[0] <= -6 ? 0 : 10 ** range[0];
    model.density = { filterType: "number", type: "inRange", filter: low, filterTo: 10 ** range[1] };
  }
  window.dash_ag_grid.getApiAsync("feature-grid").then((grid) => grid.setFilterModel(model));
  return none();
}

/** @param {Prompt | null} run @param {PromptSelection} selection @param {Asked} asked */
export function promptAddress(run, selection, asked) {
  if (!run || !onPage("prompt")) return none();
  return show("/prompt", { ...run, chat: run.chat ? 1 : "", ...selection, ...asked });
}

/**
 * The page that reads the prompt of the overview. The field itself is read: its property lags behind by a key stroke.
 * @param {number | null} clicks @param {number | null} enters
 */
export function ask(clicks, enters) {
  if (!clicks && !enters) return none(); // the field was only drawn
  const text = /** @type {HTMLInputElement} */ (byId("ask-text")).value;
  return `/prompt${text.trim() ? `?${new URLSearchParams({ text })}` : ""}`;
}

/** @param {string} kind @param {string} head @param {string} text @param {{ name: string } | null} state */
export function headsAddress(kind, head, text, state) {
  if (!state || !onPage("heads")) return none();
  const path = `/heads/${encodeURIComponent(state.name)}`;
  return show(path, { kind: kind === "induction" ? "" : kind, head, text: head ? text : "" });
}

// Back navigation to a feature that was opened without the router.
window.addEventListener("popstate", () => {
  const match = location.pathname.match(/^\/feature\/([^/]+)\/(\d+)$/);
  if (!match || !document.getElementById("feature-detail")) return;
  const state = { features: decodeURIComponent(match[1]), index: Number(match[2]) };
  setProps("feature-state", { data: state });
});

/** @param {...string} ids */
const click =
  (...ids) =>
  () =>
    ids
      .map((id) => document.getElementById(id))
      .find(Boolean)
      ?.click();
/** @type {Record<string, () => void>} */
const keys = {
  j: () => step(1) || click("feature-next", "choice-next")(),
  ArrowRight: click("feature-next"),
  k: () => step(-1) || click("feature-previous", "choice-previous")(),
  ArrowLeft: click("feature-previous"),
  r: click("feature-random"),
  t: click("scheme-toggle"),
  "?": click("help-open"),
  "/": () => /** @type {HTMLInputElement} */ (byId("find-box")).select(),
  f: () => all(".wb-search input, .wb-search textarea").at(0)?.focus(),
};

/**
 * One token of a text is in the order of Tab; the arrow keys, Home and End move along the highlighted ones.
 * @param {KeyboardEvent} event
 */
function stepTokens(event) {
  const token = under(event, ".wb-tokens:not(.wb-token-row) > .wb-mark[tabindex]");
  if (!token || event.ctrlKey || event.metaKey || event.altKey) return false;
  const tokens = all(":scope > .wb-mark[tabindex]", token.parentElement ?? undefined),
    at = tokens.indexOf(token);
  const to = {
    ArrowRight: at + 1,
    ArrowDown: at + 1,
    ArrowLeft: at - 1,
    ArrowUp: at - 1,
    Home: 0,
    End: tokens.length - 1,
  }[event.key];
  if (to === undefined) return false;
  event.preventDefault();
  const next = tokens[Math.min(Math.max(to, 0), tokens.length - 1)];
  token.tabIndex = -1;
  next.tabIndex = 0;
  next.focus();
  return true;
}

// An open dialog takes the focus; its header is not a second banner of the page.
document.addEventListener("focusin", (event) => {
  under(event, ".mantine-Modal-content")?.querySelector("header")?.setAttribute("role", "presentation");
});

document.addEventListener("keydown", (event) => {
  const cell = under(event, ".ag-cell");
  if (event.key === "Enter" && cell && cell === event.target) cell.click(); // a row opens by key too
  if (stepTokens(event)) return;
  const field = under(event, "input, textarea, select, [contenteditable], [role=slider], [role=radio]");
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
    (document.getElementById("prompt-go") || document.getElementById("heads-go"))?.click();
  } else if (event.key === "Escape" && field) {
    field.blur();
  } else if (!field && !event.ctrlKey && !event.metaKey && !event.altKey && keys[event.key]) {
    if (event.key.startsWith("Arrow") && under(event, ".ag-root")) return;
    event.preventDefault();
    keys[event.key]();
  }
});
