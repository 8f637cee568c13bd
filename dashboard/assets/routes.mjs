// Draws stored routes: an element with `data-routes-source` becomes their picture (routes/routes.mjs).

import { all, whenChanged } from "./dom.mjs";

function draw() {
  for (const root of all("[data-routes-source]:not([data-routes-drawn])")) {
    root.dataset.routesDrawn = "";
    import("./routes/routes.mjs").then(({ viewOf }) => viewOf(root).open(root.dataset.routesSource ?? ""));
  }
}

whenChanged(draw, { childList: true });
