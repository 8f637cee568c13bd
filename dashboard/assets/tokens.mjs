// The tooltip of inactive tokens: their runs are one element each, so the token is found by the offset under the pointer.

import { element, under } from "./dom.mjs";

/** @type {HTMLElement | null} */
let tip = null;

function hide() {
  tip?.remove();
  tip = null;
}

/** @param {MouseEvent} event */
function offsetAt(event) {
  if (document.caretPositionFromPoint) return document.caretPositionFromPoint(event.clientX, event.clientY)?.offset;
  return document.caretRangeFromPoint?.(event.clientX, event.clientY)?.startOffset;
}

document.addEventListener("mousemove", (event) => {
  const run = under(event, ".wb-tokens[data-ids] > span[data-at]");
  const offset = run ? offsetAt(event) : undefined;
  const strip = run?.parentElement?.dataset;
  if (!run || !strip || offset === undefined) return hide();
  const lengths = (run.dataset.lengths ?? "").split(",").map(Number);
  let at = 0,
    end = lengths[0];
  while (at < lengths.length - 1 && offset >= end) end += lengths[++at];
  const number = Number(run.dataset.at) + at;
  tip ??= element("div", { class: "wb-tip", "aria-hidden": "true" });
  document.body.append(tip);
  tip.textContent = `0, position ${Number(strip.first) + number}, token ${(strip.ids ?? "").split(",")[number]}`;
  tip.style.left = `${event.clientX}px`;
  tip.style.top = `${event.clientY - 10}px`;
});
document.addEventListener("scroll", hide, true);
