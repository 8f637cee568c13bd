// The Dash component `workbench_atlas.AtlasMap`, and what the atlas page does in the browser alone. The view itself is in
// assets/atlas/*.mjs; where the page began with a map (assets/atlas/early.mjs), that one is taken over.
(function () {
  const { createElement, useEffect, useRef } = window.React;
  const none = () => window.dash_clientside.no_update;
  const KEYS = ["colour", "size", "search", "filter", "selection", "point", "at", "overlays", "neighbours"];
  const MODULE = new URL("atlas/view.mjs", document.currentScript.src).href;

  function AtlasMap(props) {
    const place = useRef(null), view = useRef(null), latest = useRef(props);
    latest.current = props;
    const given = () => Object.fromEntries(KEYS.map((key) => [key, latest.current[key] ?? undefined]));
    useEffect(() => {
      let gone = false;
      import(MODULE).then(({ AtlasView, sourceAt }) => {
        if (gone) return;
        const early = window.atlasEarly?.base === props.source ? window.atlasEarly.take() : null;
        view.current = early?.view ?? new AtlasView(document.createElement("div"), sourceAt(props.source), given());
        view.current.changed = (part) => latest.current.setProps(part);
        view.current.moveTo(place.current);
        view.current.set({ ...given(), ...early?.touched });
        if (early) latest.current.setProps(early.touched); // what was done before the page was up
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

  // The address follows the view; what is as at first is left out.
  function address(colour, size, search, filter, selection, point, at, overlays, state) {
    if (!state || location.pathname.split("/")[1] !== "atlas") return none();
    const plain = (overlays || []).join(",") === "labels,contours,minimap";
    const query = {
      colour: colour === state.colour ? "" : colour, size, q: search, filter, selection, point, at,
      overlays: !overlays || plain ? "" : overlays.join(",") || "none",
    };
    return window.workbenchAddress.show(`/atlas/${encodeURIComponent(state.name)}`, query);
  }

  // What narrows the table, as one value; a row that is pressed becomes the chosen point.
  const narrowing = (search, filter, selection) => ({ search: search || "", filter: filter || "", selection: selection || "" });

  function refresh() {
    window.dash_ag_grid?.getApiAsync("atlas-grid").then((grid) => {
      grid.purgeInfiniteCache();
    }).catch(() => {});
    return none();
  }

  function pressed(cell) {
    const point = Number(cell?.rowId);
    return Number.isInteger(point) && cell ? point : none();
  }

  // A neighbour or region in the side panel.
  document.addEventListener("click", (event) => {
    const set = (part) => window.dash_clientside.set_props("atlas-map", part);
    const neighbour = event.target.closest("[data-atlas-point]"), region = event.target.closest("[data-atlas-region]");
    if (neighbour) set({ point: Number(neighbour.dataset.atlasPoint), neighbours: [] });
    if (region) set({ selection: `region:${region.dataset.atlasRegion}` });
  });

  window.workbench_atlas = { AtlasMap };
  window.dash_clientside = Object.assign({}, window.dash_clientside, { atlas: { atlasAddress: address, narrowing, refresh, pressed } });
})();
