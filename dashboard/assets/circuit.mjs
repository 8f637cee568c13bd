// Browser-only handling of a circuit's graph. Callbacks in Python refer to these functions by name.

import { none, setProps } from "./dash.mjs";
import { under } from "./dom.mjs";
import { show } from "./workbench.mjs";

/** @typedef {HTMLElement & { _cyreg?: { cy: Cytoscape } }} Holder */
const graph = () => /** @type {Holder | null} */ (document.getElementById("circuit-graph"))?._cyreg?.cy;
const LARGEST = 1.3;
const on = () => location.pathname.split("/")[1] === "circuit";

/**
 * A click on a node, an edge or a row of the table. The tapped element is reset, so that it can be tapped again.
 * @param {{ id: string } | null} node @param {{ id: string } | null} edge @param {GridCell | null} cell
 */
export function choose(node, edge, cell) {
  const from = window.dash_clientside.callback_context.triggered.map((t) => t.prop_id);
  if (from.includes("circuit-grid.cellClicked") && cell) return [cell.rowId, none(), none()];
  if (from.includes("circuit-graph.tapEdgeData") && edge) return [edge.id, none(), null];
  if (from.includes("circuit-graph.tapNodeData") && node) return [node.id, null, none()];
  return [none(), none(), none()];
}

/** @param {{ id: string }[] | null} nodes */
export function selected(nodes) {
  return (nodes || []).map((node) => node.id).filter((id) => !/^(group|axis):/.test(id));
}

/** @param {number | null} clicks @param {{ name: string }} state */
export function picture(clicks, state) {
  if (!clicks) return none();
  const background = getComputedStyle(document.documentElement).getPropertyValue("--wb-surface").trim();
  return {
    type: "png",
    action: "download",
    filename: state.name.split("/").pop(),
    options: { bg: background, full: true, scale: 2 },
  };
}

/**
 * @param {{ n: number, paths: boolean, groups: string } | null} view @param {string | null} chosen
 * @param {{ name: string } | null} state
 */
export function circuitAddress(view, chosen, state) {
  if (!state || !view || !on()) return none();
  const given = { n: view.n, paths: view.paths ? 1 : "", at: chosen, groups: view.groups };
  const name = state.name.split("/").map(encodeURIComponent).join("/");
  return show(`/circuit/${name}`, given);
}

// Fit the whole graph, but never with text larger than the page's. Repeated once the canvas has its size.
function fitNow() {
  const cy = graph();
  if (!cy?.elements().length) return;
  cy.resize();
  cy.fit(undefined, 26);
  if (cy.zoom() > LARGEST) {
    cy.zoom(LARGEST);
    cy.center();
  }
}

/** @type {HTMLElement | null} */
let watched = null;
const observer = new ResizeObserver(fitNow);

export function fit() {
  const canvas = document.getElementById("circuit-canvas");
  if (canvas && canvas !== watched) {
    observer.disconnect();
    observer.observe(canvas);
    watched = canvas;
  }
  for (const wait of [30, 160]) setTimeout(fitNow, wait); // the component shows new elements with a short delay
  return none();
}

/** @param {string} how */
function zoom(how) {
  const cy = graph();
  if (!cy) return;
  if (how === "fit") return fitNow();
  const centre = { x: cy.width() / 2, y: cy.height() / 2 };
  cy.zoom({ level: cy.zoom() * (how === "in" ? 1.25 : 0.8), renderedPosition: centre });
}

document.addEventListener("click", (event) => {
  const button = under(event, "[data-circuit-zoom]");
  if (button) zoom(button.dataset.circuitZoom ?? "fit");
  const link = under(event, "[data-circuit-at]");
  if (link) setProps("circuit-chosen", { data: link.dataset.circuitAt || null });
});

/** @type {Record<string, string>} */
const keys = { "+": "in", "=": "in", "-": "out", 0: "fit" };
document.addEventListener("keydown", (event) => {
  const field = under(event, "input, textarea, select, [contenteditable], [role=slider], .ag-root");
  if (!on() || field || event.ctrlKey || event.metaKey || event.altKey) return;
  if (keys[event.key]) zoom(keys[event.key]);
  if (event.key === "Escape") setProps("circuit-chosen", { data: null });
});
