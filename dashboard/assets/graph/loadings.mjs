// Share of the whole graph's influence that passes through each attention head: the strongest as bars, all as a map.

import { button, element, svg } from "../dom.mjs";
import { failure } from "./marks.mjs";
import { waiting } from "./waiting.mjs";

const LISTED = 8;
const CELL = 11; // pixels of the map

export class Loadings {
  /** @param {GraphView} view @param {string} visitor */
  constructor(view, visitor) {
    this.view = view;
    this.visitor = visitor;
    this.answer = element("div", { role: "status" });
    const run = button("Measure", { "data-act": "loadings", onclick: () => this.run() });
    this.root = element(
      "section",
      { class: "wb-panel", "aria-label": "Heads of the whole graph" },
      element(
        "details",
        { class: "wb-folded" },
        element("summary", {}, "Heads of the whole graph"),
        element("p", { class: "wb-note" }, "Share of the influence on paths through each head, with attention held."),
        element("div", { class: "wb-graph-acts" }, run),
        this.answer,
      ),
    );
  }

  async run() {
    const { view, visitor, answer } = this;
    try {
      const found = await waiting(answer, visitor, "asking the model", view.ask("loadings.json", { visitor }));
      answer.replaceChildren(...drawn(/** @type {LoadingsAnswer} */ (found)));
    } catch (error) {
      answer.replaceChildren(failure(error));
    }
  }
}

/** @param {number} share */
const percent = (share) => `${(100 * share).toFixed(1)} %`.replace("-", "−");

/** @param {LoadingsAnswer} given */
function drawn({ headline, shares }) {
  const heads = shares.flatMap((row, layer) => row.map((share, head) => ({ name: `L${layer}H${head}`, share }))),
    ranked = [...heads].sort((a, b) => Math.abs(b.share) - Math.abs(a.share)).slice(0, LISTED),
    most = Math.abs(ranked[0].share) || 1;
  const lines = ranked.map(({ name, share }) =>
    element(
      "li",
      { class: "wb-graph-line" },
      element("span", {}, name),
      element("span", {}, ""),
      element("span", {}, percent(share)),
      element("i", {
        class: `wb-graph-bar${share < 0 ? " wb-graph-negative" : ""}`,
        style: `width: ${(100 * Math.abs(share)) / most}%`,
        "aria-hidden": "true",
      }),
    ),
  );
  return [
    element("p", {}, headline),
    element("ol", { class: "wb-graph-edges" }, ...lines),
    map(shares, most),
    element("p", { class: "wb-note" }, "A row a layer, layer 0 at the bottom; a column a head. Orange: below 0."),
  ];
}

/** @param {number[][]} shares @param {number} most */
function map(shares, most) {
  const layers = shares.length,
    width = 24 + CELL * shares[0].length,
    cells = shares.flatMap((row, layer) =>
      row.map((share, head) => {
        const at = { x: 24 + CELL * head, y: CELL * (layers - 1 - layer), width: CELL - 1, height: CELL - 1 },
          look = {
            fill: `var(--wb-${share < 0 ? "opposite" : "accent"})`,
            "fill-opacity": 0.06 + (0.94 * Math.abs(share)) / most,
          };
        return svg("rect", { ...at, ...look }, svg("title", {}, `L${layer}H${head}: ${percent(share)}`));
      }),
    ),
    marks = shares.flatMap((_, layer) =>
      layer % 5
        ? []
        : [
            svg(
              "text",
              { x: 20, y: CELL * (layers - layer) - 2, "text-anchor": "end", class: "wb-graph-tick-text" },
              `${layer}`,
            ),
          ],
    );
  const label = "Share of influence by layer and head";
  return svg(
    "svg",
    { viewBox: `0 0 ${width} ${CELL * layers}`, width, height: CELL * layers, role: "img", "aria-label": label },
    ...marks,
    ...cells,
  );
}
