// A tour under the bar: shown at the first visit of the overview until it is dismissed, and from the help.

import { setProps } from "./dash.mjs";
import { element, under } from "./dom.mjs";

const KEY = "workbench-tour";
/** @type {string[][]} title, words, link and address of each step, of what the workspace has (dashboard/data/tour.py) */
let steps = [];
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
  at = step !== null && step >= 0 && step < steps.length ? step : null;
  stored(at === null ? "done" : String(at));
  focus = at !== null;
  draw();
}

function draw() {
  const holder = document.getElementById("tour");
  if (!holder) return;
  holder.hidden = at === null;
  if (at === null) return holder.replaceChildren();
  const [title, words, link, address] = steps[at];
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
  const last = at === steps.length - 1;
  const next = button("tour-next", last ? "Finish" : "Next", last ? null : at + 1);
  holder.replaceChildren(
    element("strong", { textContent: `Tour, ${at + 1} of ${steps.length}: ${title}` }),
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
  steps = JSON.parse(document.getElementById("tour")?.dataset.steps ?? "[]");
  if (at !== null && at >= steps.length) at = null;
  draw();
});
watch.observe(document.documentElement, { childList: true, subtree: true });
