// A click on a bar of the histogram of a feature, or a drag over bars, sets the slider under it to their range.

import { setProps } from "./dash.mjs";

let drag = null;

function bars() {
  return [...document.querySelectorAll("#feature-histogram .wb-bin")].map((bar) => bar.getBoundingClientRect());
}

function mark(from, to) {
  const plot = document.querySelector("#feature-histogram .wb-bins").getBoundingClientRect();
  if (!drag.box) {
    drag.box = document.createElement("div");
    drag.box.className = "wb-brush";
    document.body.append(drag.box);
  }
  Object.assign(drag.box.style, {
    left: `${Math.max(Math.min(from, to), plot.left)}px`,
    top: `${plot.top}px`,
    height: `${plot.height}px`,
    width: `${Math.min(Math.max(from, to), plot.right) - Math.max(Math.min(from, to), plot.left)}px`,
  });
}

document.addEventListener(
  "mousedown",
  (event) => {
    const plot = event.target.closest?.("#feature-histogram .wb-bins");
    if (!plot || event.button !== 0 || !document.getElementById("feature-range")) return;
    drag = { from: event.clientX };
  },
  true,
);

document.addEventListener(
  "mousemove",
  (event) => {
    if (drag && Math.abs(event.clientX - drag.from) > 3) mark(drag.from, event.clientX);
  },
  true,
);

document.addEventListener(
  "mouseup",
  (event) => {
    if (!drag) return;
    drag.box?.remove();
    const [left, right] = [drag.from, event.clientX].sort((a, b) => a - b);
    drag = null;
    const all = bars(),
      width = all.length > 1 ? all[1].left - all[0].left : Infinity;
    const touched = all
      .map((bar, i) => [bar.left + bar.width / 2, i])
      .filter(([x]) => x + width / 2 > left && x - width / 2 < right);
    if (!touched.length) return;
    const first = Number(document.getElementById("feature-range-first").dataset.first);
    setProps("feature-range", { value: [first + touched[0][1], first + touched.at(-1)[1] + 1] });
  },
  true,
);

document.addEventListener("click", (event) => {
  if (!event.target.closest?.("#feature-range-see")) return;
  const examples = document.getElementById("feature-examples");
  examples?.closest(".wb-panel").scrollIntoView({ block: "start" });
  examples?.querySelector(".wb-mark")?.focus({ preventScroll: true });
});
