// A click on a bar of the histogram of a feature, or a drag over bars, sets the slider under it to their range.

import { setProps } from "./dash.mjs";
import { all, byId, element, under } from "./dom.mjs";

/** @type {{ from: number, box: HTMLElement } | null} */
let drag = null;

function bars() {
  return all("#feature-histogram .wb-bin").map((bar) => bar.getBoundingClientRect());
}

/** @param {HTMLElement} box @param {number} from @param {number} to */
function mark(box, from, to) {
  const plot = document.querySelector("#feature-histogram .wb-bins")?.getBoundingClientRect();
  if (!plot) return;
  const left = Math.max(Math.min(from, to), plot.left),
    right = Math.min(Math.max(from, to), plot.right);
  const place = { left, top: plot.top, width: right - left, height: plot.height };
  for (const [name, value] of Object.entries(place)) box.style.setProperty(name, `${value}px`);
  document.body.append(box);
}

document.addEventListener(
  "mousedown",
  (event) => {
    const plot = under(event, "#feature-histogram .wb-bins");
    if (!plot || event.button !== 0 || !document.getElementById("feature-range")) return;
    drag = { from: event.clientX, box: element("div", { class: "wb-brush" }) };
  },
  true,
);

document.addEventListener(
  "mousemove",
  (event) => {
    if (drag && Math.abs(event.clientX - drag.from) > 3) mark(drag.box, drag.from, event.clientX);
  },
  true,
);

document.addEventListener(
  "mouseup",
  (event) => {
    if (!drag) return;
    drag.box.remove();
    const [left, right] = [drag.from, event.clientX].sort((a, b) => a - b);
    drag = null;
    const all = bars(),
      width = all.length > 1 ? all[1].left - all[0].left : Infinity;
    const touched = all
      .map((bar, i) => [bar.left + bar.width / 2, i])
      .filter(([x]) => x + width / 2 > left && x - width / 2 < right);
    const ends = [touched.at(0), touched.at(-1)].map((each) => each?.[1] ?? 0);
    if (!touched.length) return;
    const first = Number(byId("feature-range-first").dataset.first);
    setProps("feature-range", { value: [first + ends[0], first + ends[1] + 1] });
  },
  true,
);

document.addEventListener("click", (event) => {
  if (!under(event, "#feature-range-see")) return;
  const examples = byId("feature-examples");
  examples.closest(".wb-panel")?.scrollIntoView({ block: "start" });
  all(".wb-mark", examples).at(0)?.focus({ preventScroll: true });
});
