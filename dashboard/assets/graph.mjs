// Draws attribution graphs: each empty element with `data-graph-source` becomes a view (assets/graph/view.mjs).

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
  import("./graph/view.mjs").then(({ GraphView }) => {
    if (root.isConnected) view = new GraphView(root);
  });
}

whenChanged(draw, { childList: true });
