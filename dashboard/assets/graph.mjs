// Draws graphs: an empty element with `data-graph-source` becomes the view of an attribution graph (graph/view.mjs), or
// of a circuit (graph/circuit.mjs).

import { all, whenChanged } from "./dom.mjs";

/** @type {GraphView | null} */
let view = null;

function draw() {
  if (view && !view.root.isConnected) {
    view.close();
    view = null;
  }
  const [root] = all("[data-graph-source]:not([data-graph-drawn])");
  if (!root) return;
  root.dataset.graphDrawn = "";
  const isCircuit = root.dataset.graphPage === "circuit";
  const loaded = isCircuit
    ? import("./graph/circuit.mjs").then(({ CircuitView }) => CircuitView)
    : import("./graph/view.mjs").then(({ GraphView }) => GraphView);
  loaded.then((View) => {
    if (root.isConnected) view = new View(root);
  });
}

/** Routes of a prompt that are stored: their element becomes their picture (routes/routes.mjs). */
function drawRoutes() {
  for (const root of all("[data-routes-source]:not([data-routes-drawn])")) {
    root.dataset.routesDrawn = "";
    import("./routes/routes.mjs").then(({ viewOf }) => viewOf(root).open(root.dataset.routesSource ?? ""));
  }
}

whenChanged(drawRoutes, { childList: true });
whenChanged(draw, { childList: true });
