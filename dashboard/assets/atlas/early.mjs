// The map before the dashboard: on /atlas it is drawn at its final position while the rest of the page still loads; the
// component adopts it later (assets/atlas.mjs). dashboard/maps/routes.py puts this script into the page.

import { AtlasView, sourceAt } from "./view.mjs";

/** @type {Record<string, "colour" | "search" | "filter" | "selection" | "at">} */
const KEYS = { colour: "colour", q: "search", filter: "filter", selection: "selection", at: "at" };

/** State of the view from the address, parsed as the page parses it. */
function fromAddress() {
  const given = new URLSearchParams(location.search);
  /** @type {Partial<AtlasState>} */
  const state = {};
  for (const [key, name] of Object.entries(KEYS)) state[name] = given.get(key) || undefined;
  const point = Number.parseInt(given.get("point") ?? "", 10);
  if (Number.isInteger(point)) state.point = point;
  const overlays = given.get("overlays");
  if (overlays) state.overlays = overlays.split(",").filter((each) => each !== "none");
  return state;
}

/** @param {string} base */
function start(base) {
  const root = document.createElement("div");
  root.className = "atlas atlas-early";
  document.body.append(root);
  const view = new AtlasView(root, sourceAt(base), fromAddress()),
    touched = {};
  view.changed = (part) => Object.assign(touched, part);
  const leave = () => {
    watch.disconnect();
    window.atlasEarly = null;
  };
  const watch = new MutationObserver(() => {
    const page = document.querySelector(".wb-page:not(.wb-waiting)");
    if (!page || page.querySelector("#atlas-map")) return; // not there yet, or about to adopt the view
    leave();
    view.close();
  });
  watch.observe(document.body, { childList: true, subtree: true });
  const take = () => {
    leave();
    return { view, touched };
  };
  window.atlasEarly = { base, take };
}

const base = /** @type {HTMLElement | null} */ (document.querySelector("link[data-atlas]"))?.dataset.atlas;
if (base && document.body) start(base);
else if (base) document.addEventListener("readystatechange", () => start(base), { once: true });
