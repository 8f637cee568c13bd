// A tour of four steps under the bar: shown at the first visit of the overview until it is dismissed, and from the help.

import { setProps } from "./dash.mjs";
import { element, under } from "./dom.mjs";

const KEY = "workbench-tour";
const STEPS = [
  [
    "Search for a word",
    "Type a word into Find features (key /): features are ranked by how strongly, and how selectively, they fire on it.",
    "Search for January",
    "/search?q=January",
  ],
  [
    "Prove a feature",
    "A feature's page shows the text on which it fires. Under Prove it, test it against random directions.",
    "Open the features",
    "/feature",
  ],
  [
    "Look at a prompt",
    "Choose a token of a prompt: its features, the logit lens, attention and attribution follow the choice.",
    "Open a prompt",
    "/prompt",
  ],
  [
    "See the map",
    "On the atlas similar vectors lie together. A click shows the nearest neighbours in the full space.",
    "Open the map",
    "/atlas",
  ],
];
/** @type {number | null} */
let at = null; // the step that is shown
let focus = false;

/** @param {string} [value] */
function stored(value) {
  try {
    if (value === undefined) return localStorage.getItem(KEY);
    localStorage.setItem(KEY, value);
  } catch {
    /* private window: the tour is remembered for this page only */
  }
  return value ?? null;
}

/** @param {number | null} step */
function go(step) {
  at = step !== null && step >= 0 && step < STEPS.length ? step : null;
  stored(at === null ? "done" : String(at));
  focus = at !== null;
  draw();
}

function draw() {
  const holder = document.getElementById("tour");
  if (!holder) return;
  holder.hidden = at === null;
  if (at === null) return holder.replaceChildren();
  const [title, words, link, address] = STEPS[at];
  const open = element("a", { href: address, class: "wb-link", textContent: link });
  open.addEventListener("click", (event) => {
    if (event.ctrlKey || event.metaKey || event.shiftKey) return;
    event.preventDefault();
    setProps("nav", { href: address });
  });
  /** @param {string} id @param {string} text @param {number | null} step */
  const button = (id, text, step) => {
    const made = element("button", { id, type: "button", class: "wb-link", textContent: text });
    made.addEventListener("click", () => go(step));
    return made;
  };
  const last = at === STEPS.length - 1;
  const next = button("tour-next", last ? "Finish" : "Next", last ? null : at + 1);
  holder.replaceChildren(
    element("strong", { textContent: `Tour, ${at + 1} of ${STEPS.length}: ${title}` }),
    element("span", { class: "wb-tour-words", textContent: words }),
    open,
    ...(at > 0 ? [button("tour-back", "Back", at - 1)] : []),
    next,
    ...(last ? [] : [button("tour-close", "Dismiss the tour", null)]),
  );
  if (focus) next.focus();
  focus = false;
}

document.addEventListener("click", (event) => {
  if (!under(event, "#help-tour")) return;
  setProps("help", { opened: false });
  go(0);
});

// The frame of the page is drawn by Dash some time after this script ran.
const before = stored();
if (before === null && location.pathname === "/") at = 0;
else if (before !== null && /^[0-3]$/.test(before)) at = Number(before);
const watch = new MutationObserver(() => {
  if (!document.getElementById("tour")) return;
  watch.disconnect();
  draw();
});
watch.observe(document.documentElement, { childList: true, subtree: true });
