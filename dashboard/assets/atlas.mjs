// The Dash component `workbench_atlas.AtlasMap`, and the browser-only callbacks of the atlas page. The view itself is in
// assets/atlas/*.mjs; a map that the page already shows (assets/atlas/early.mjs) is adopted.

import { none, setProps } from "./dash.mjs";
import { under } from "./dom.mjs";
import { show } from "./workbench.mjs";

const { createElement, useEffect, useRef } = window.React;
const KEYS = ["colour", "search", "filter", "selection", "point", "at", "overlays", "neighbours"];

/** @param {AtlasState & { id: string, source: string, setProps(part: Properties): void }} props */
export function AtlasMap(props) {
  const place = useRef(/** @type {HTMLElement | null} */ (null));
  const view = useRef(/** @type {AtlasView | null} */ (null));
  const latest = useRef(props);
  latest.current = props;
  /** @returns {Partial<AtlasState>} */
  const given = () => {
    const now = /** @type {Properties} */ ({ ...latest.current });
    return Object.fromEntries(KEYS.map((key) => [key, now[key] ?? undefined]));
  };
  useEffect(() => {
    let gone = false;
    import("./atlas/view.mjs").then(({ AtlasView, sourceAt }) => {
      if (gone) return;
      const early = window.atlasEarly?.base === props.source ? window.atlasEarly.take() : null;
      const map = early?.view ?? new AtlasView(document.createElement("div"), sourceAt(props.source), given());
      view.current = map;
      map.changed = (part) => latest.current.setProps(part);
      if (place.current) map.moveTo(place.current);
      map.set({ ...given(), ...early?.touched });
      if (early) latest.current.setProps(early.touched); // changes made before the page had loaded
    });
    return () => {
      gone = true;
      view.current?.close();
      view.current = null;
    };
  }, [props.source]);
  useEffect(() => view.current?.set(given()));
  return createElement("div", { id: props.id, ref: place, className: "atlas-place" });
}

/**
 * The address follows the view; values equal to the defaults are omitted.
 * @param {string} colour @param {string} search @param {string} filter @param {string} selection
 * @param {number | null} point @param {string} at @param {string[] | null} overlays
 * @param {{ name: string, colour: string } | null} state
 */
export function atlasAddress(colour, search, filter, selection, point, at, overlays, state) {
  if (!state || location.pathname.split("/")[1] !== "atlas") return none();
  const plain = (overlays || []).join(",") === "labels";
  const query = {
    colour: colour === state.colour ? "" : colour,
    q: search,
    filter,
    selection,
    point,
    at,
    overlays: !overlays || plain ? "" : overlays.join(",") || "none",
  };
  return show(`/atlas/${encodeURIComponent(state.name)}`, query);
}

/**
 * The table's selection, search and filter as one value; a pressed row becomes the chosen point.
 * @param {string} search @param {string} filter @param {string} selection
 */
export const narrowing = (search, filter, selection) => ({
  search: search || "",
  filter: filter || "",
  selection: selection || "",
});

export function refresh() {
  window.dash_ag_grid
    ?.getApiAsync("atlas-grid")
    .then((grid) => {
      grid.purgeInfiniteCache();
    })
    .catch(() => {});
  return none();
}

/** @param {GridCell | null} cell */
export function pressed(cell) {
  const point = Number(cell?.rowId);
  return Number.isInteger(point) && cell ? point : none();
}

// A click on a neighbour or region in the side panel.
document.addEventListener("click", (event) => {
  /** @param {Partial<AtlasState>} part */
  const set = (part) => setProps("atlas-map", part);
  const neighbour = under(event, "[data-atlas-point]"),
    region = under(event, "[data-atlas-region]");
  if (neighbour) set({ point: Number(neighbour.dataset.atlasPoint), neighbours: [] });
  if (region) set({ selection: `region:${region.dataset.atlasRegion}` });
});
