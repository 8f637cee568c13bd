// The palette (Ctrl K): a field, and a list of pages, artefacts, notes and features that it narrows. It only navigates:
// what runs something has its form on a page. Texts are set as text, never as HTML.

import { setProps } from "./dash.mjs";
import { element, under, visible } from "./dom.mjs";
import { json, messageOf } from "./http.mjs";

const MOST = 6; // of a kind
const NEWEST = 30; // pages, and the newest artefacts, before anything is typed
const WAIT = 150; // ms without a key stroke, after which features are asked for
const LIST = "palette-list";

/** @typedef {{ kind: string, text: string, about: string, href: string }} Destination */
/** @type {{ features: string, destinations: Destination[] }} */
let known = { features: "", destinations: [] };
/** @type {Destination[]} */
let features = []; // of what is typed
/** @type {Destination[]} */
let shown = [];
let at = 0; // the option that Enter opens
/** @type {ReturnType<typeof setTimeout> | undefined} */
let due;
/** @type {AbortController | undefined} */
let asking;

const field = element("input", {
  ...{ type: "text", role: "combobox", autocomplete: "off", spellcheck: "false", placeholder: "Go to…" },
  ...{ "aria-label": "Go to a page, an artefact, a note or a feature", "aria-expanded": "true" },
  ...{ "aria-controls": LIST, "aria-autocomplete": "list", oninput: typed, onkeydown: step },
});
const list = element("ul", { id: LIST, role: "listbox", "aria-label": "Destinations", onclick: chosen });
const said = element("p", { class: "wb-note", role: "status" });
const dialog = element("dialog", { class: "wb-palette", "aria-label": "Go to" }, field, list, said);
dialog.addEventListener("click", (event) => event.target === dialog && dialog.close()); // beside it

async function open() {
  if (!dialog.isConnected) document.body.append(dialog);
  if (dialog.open) return dialog.close();
  field.value = "";
  features = [];
  draw();
  dialog.showModal();
  try {
    known = /** @type {typeof known} */ (await json("/api/destinations"));
    draw();
  } catch (error) {
    said.textContent = messageOf(error);
  }
}

/**
 * Whether a destination has every word, and how early: 0 at the beginning of its name.
 * @param {Destination} destination @param {string} query
 */
function rank({ text, about, kind }, query) {
  const name = text.toLowerCase(),
    all = `${name} ${about.toLowerCase()} ${kind}`;
  if (!query.split(/\s+/).every((word) => all.includes(word))) return Infinity;
  return name.startsWith(query) ? 0 : name.includes(query) ? 1 : 2;
}

/** The best of every kind; the search is last, so that no query leads nowhere. @param {string} typed @returns {Destination[]} */
function matches(typed) {
  const query = typed.trim().toLowerCase(),
    destinations = known.destinations.filter((destination) => rank(destination, query) < Infinity);
  if (!query) return destinations.filter(({ kind }, i) => kind === "page" || i < NEWEST);
  destinations.sort((a, b) => rank(a, query) - rank(b, query));
  const best = ["page", "artefact", "note"].flatMap((one) =>
    destinations.filter(({ kind }) => kind === one).slice(0, MOST),
  );
  const href = `/search?${new URLSearchParams({ q: typed.trim() })}`;
  return [
    ...best,
    ...features,
    { kind: "search", text: `Search features for “${visible(typed.trim(), 60)}”`, about: "", href },
  ];
}

function draw() {
  shown = matches(field.value);
  at = Math.min(at, Math.max(0, shown.length - 1));
  list.replaceChildren(
    ...shown.map(({ kind, text, about }, i) =>
      element(
        "li",
        { id: `palette-${i}`, role: "option", "aria-selected": i === at ? "true" : "false" },
        element("span", { dir: "auto" }, text),
        element("span", { class: "wb-quiet", dir: "auto" }, about),
        element("span", { class: "wb-quiet" }, kind === "search" ? "" : kind),
      ),
    ),
  );
  const nothing = field.value.trim() && shown.length === 1;
  said.textContent = !nothing
    ? ""
    : asking
      ? "Looking for features…"
      : "No page, artefact, note or label has these words. Enter searches the texts on which features fire.";
  mark(at);
}

/** @param {number} to */
function mark(to) {
  list.children[at]?.setAttribute("aria-selected", "false");
  at = to;
  const option = list.children[at];
  option?.setAttribute("aria-selected", "true");
  option?.scrollIntoView({ block: "nearest" });
  if (option) field.setAttribute("aria-activedescendant", option.id);
  else field.removeAttribute("aria-activedescendant");
}

function typed() {
  clearTimeout(due);
  asking?.abort();
  asking = field.value.trim() ? new AbortController() : undefined;
  features = [];
  at = 0;
  draw();
  if (asking) due = setTimeout(ask, WAIT, field.value.trim(), asking);
}

/** Features by their number, or by their label. @param {string} query @param {AbortController} mine */
async function ask(query, mine) {
  const number = query.replace(/^#/, ""),
    isNumber = /^\d+$/.test(number) || /^[^\s:]+:\d+$/.test(query),
    limit = String(MOST),
    of = { features: known.features, text: query, sort: "label_score", descending: "true", limit },
    asked = isNumber
      ? `search?${new URLSearchParams({ query: /^\d/.test(number) ? `#${number}` : query, limit })}`
      : "";
  try {
    if (isNumber || known.features) {
      const answer = await json(`/api/${asked || `features?${new URLSearchParams(of)}`}`, undefined, {
        signal: mine.signal,
      });
      /** @typedef {{ features?: string, feature: number, label: string | null }} Row */
      const { hits, rows } = /** @type {{ hits?: Row[], rows?: Row[] }} */ (answer);
      features = (hits ?? rows ?? []).map(({ features: set = known.features, feature, label }) => ({
        ...{ kind: "feature", text: `#${feature} ${label ?? ""}`, about: set },
        href: `/feature/${encodeURIComponent(set)}/${feature}`,
      }));
    }
  } catch {
    features = []; // no such feature, or a newer question: the search explains the former
  }
  if (mine.signal.aborted) return;
  asking = undefined;
  draw();
}

/** @param {KeyboardEvent} event */
function step(event) {
  const by = { ArrowDown: 1, ArrowUp: -1 }[event.key],
    n = shown.length;
  if (event.key === "Enter") go(shown[at]);
  else if (by && n) mark((at + by + n) % n);
  else return;
  event.preventDefault();
}

/** @param {MouseEvent} event */
function chosen(event) {
  const option = under(event, "[role=option]");
  if (option) go(shown[[...list.children].indexOf(option)]);
}

/** @param {Destination | undefined} destination */
function go(destination) {
  if (!destination) return;
  dialog.close();
  setProps("nav", { href: destination.href });
}

document.addEventListener(
  "keydown",
  (event) => {
    if (event.key.toLowerCase() !== "k" || !(event.ctrlKey || event.metaKey) || event.shiftKey || event.altKey) return;
    event.preventDefault(); // the browser's own search field
    event.stopPropagation();
    open();
  },
  true,
);
document.addEventListener("click", (event) => {
  if (under(event, "#palette-open")) open();
});
