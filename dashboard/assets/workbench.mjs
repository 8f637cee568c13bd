// Addresses that follow the state of a page, and keyboard shortcuts. Callbacks in Python refer to these functions by name.

import { none, setProps } from "./dash.mjs";
import { step } from "./search.mjs";
import { current, flip } from "./theme.mjs";

// Replace (or push) the address without asking the server for a page.
export function show(path, query, push) {
  const given = Object.entries(query).filter(([, value]) => value !== null && value !== undefined && value !== "");
  const search = new URLSearchParams(given).toString();
  const address = path + (search ? `?${search}` : "");
  if (address === location.pathname + location.search) return none();
  history[push ? "pushState" : "replaceState"](null, "", address);
  return none();
}

const onPage = (name) => location.pathname.split("/")[1] === name;

export function scheme(clicks) {
  if (!clicks) return [current(), current()];
  const next = flip();
  window.dispatchEvent(new PopStateEvent("popstate")); // informs the router of addresses that `show` has set
  return [next, next];
}

export function navigation(pathname) {
  const page = (pathname || "/").split("/")[1];
  document.querySelectorAll(".wb-nav-link").forEach((link) => {
    const here = link.getAttribute("href").split("/")[1] === page;
    if (here) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  });
  return page;
}

// The list marks the feature that is shown, however it was reached: also once its row is loaded.
let marked = null;
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

export function featureAddress(state, text, range) {
  if (!state || !onPage("feature")) return none();
  markFeature(state.index);
  const whole = !range || (range[0] <= -6 && range[1] >= 0);
  const path = `/feature/${encodeURIComponent(state.features)}/${state.index}`;
  const moved = /^\/feature\/[^/]+\/\d+$/.test(location.pathname) && location.pathname !== path;
  return show(path, { q: text, d: whole ? "" : range.join(",") }, moved);
}

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

export function promptAddress(run, selection, asked) {
  if (!run || !onPage("prompt")) return none();
  return show("/prompt", { ...run, chat: run.chat ? 1 : "", ...selection, ...asked });
}

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

const click =
  (...ids) =>
  () =>
    ids
      .map((id) => document.getElementById(id))
      .find(Boolean)
      ?.click();
const keys = {
  j: () => step(1) || click("feature-next", "choice-next")(),
  ArrowRight: click("feature-next"),
  k: () => step(-1) || click("feature-previous", "choice-previous")(),
  ArrowLeft: click("feature-previous"),
  r: click("feature-random"),
  t: click("scheme-toggle"),
  "?": click("help-open"),
  "/": () => document.getElementById("find-box")?.select(),
  f: () => document.querySelector(".wb-search input, .wb-search textarea")?.focus(),
};

// One token of a text is in the order of Tab; the arrow keys, Home and End move along the highlighted ones.
function stepTokens(event) {
  const token = event.target.closest(".wb-tokens:not(.wb-token-row) > .wb-mark[tabindex]");
  if (!token || event.ctrlKey || event.metaKey || event.altKey) return false;
  const all = [...token.parentElement.querySelectorAll(":scope > .wb-mark[tabindex]")],
    at = all.indexOf(token);
  const to = {
    ArrowRight: at + 1,
    ArrowDown: at + 1,
    ArrowLeft: at - 1,
    ArrowUp: at - 1,
    Home: 0,
    End: all.length - 1,
  }[event.key];
  if (to === undefined) return false;
  event.preventDefault();
  const next = all[Math.min(Math.max(to, 0), all.length - 1)];
  token.tabIndex = -1;
  next.tabIndex = 0;
  next.focus();
  return true;
}

// An open dialog takes the focus; its header is not a second banner of the page.
document.addEventListener("focusin", (event) => {
  event.target.closest?.(".mantine-Modal-content")?.querySelector("header")?.setAttribute("role", "presentation");
});

document.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && event.target.matches(".ag-cell")) event.target.click(); // a row opens by key too
  if (stepTokens(event)) return;
  const field = event.target.closest("input, textarea, select, [contenteditable], [role=slider], [role=radio]");
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
    (document.getElementById("prompt-go") || document.getElementById("heads-go"))?.click();
  } else if (event.key === "Escape" && field) {
    field.blur();
  } else if (!field && !event.ctrlKey && !event.metaKey && !event.altKey && keys[event.key]) {
    if (event.key.startsWith("Arrow") && event.target.closest(".ag-root")) return;
    event.preventDefault();
    keys[event.key]();
  }
});
