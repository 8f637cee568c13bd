// The line of controls above a graph: view, number of nodes and zoom; under "More" what is rarely changed.

import { savePicture } from "../atlas/saving.mjs";
import { button, count, element } from "../dom.mjs";

const FEWEST = 10; // nodes at the left end of the slider

/** Build the controls of a view; `show()` sets them to its state. @param {GraphView} view */
export function controls(view) {
  const { model } = view;
  const tabs = Object.entries({ graph: "Whole graph", list: "List" }).map(([key, text]) =>
    button(text, { class: "wb-graph-tab", "data-view": key, onclick: () => view.show(key) }),
  );
  const nodes = slider("Nodes", "Latents and errors with the largest effect on the target", (value) =>
    view.change({ nodes: countAt(value) }),
  );
  const edges = slider("Edges", "Share of the edges’ scores in the shown edges", (value) =>
    view.change({ edges: value }),
  );
  const all = () => model.between(view.state.background);
  /** The slider grows by factors: from `FEWEST` nodes to all. @param {number} value 0 to 1 */
  const countAt = (value) => Math.round(FEWEST * (Math.max(all(), FEWEST) / FEWEST) ** value);
  /** @param {number} nodes */
  const valueAt = (nodes) =>
    Math.log(Math.max(nodes, FEWEST) / FEWEST) / Math.log(Math.max(all(), FEWEST + 1) / FEWEST);
  const collapse = box("collapse groups", (on) => view.change({ collapse: on }));
  const files = [
    picture(view),
    element(
      "a",
      {
        class: "wb-act wb-act-quiet",
        href: `${view.source}/export.json`,
        download: `${view.name}.json`,
        title: "Graph JSON with your edits, as Neuronpedia and circuit-tracer read it",
      },
      "JSON",
    ),
  ];
  const more = element(
    "details",
    { class: "wb-graph-more" },
    element("summary", {}, "More"),
    element("div", { class: "wb-graph-menu" }, edges.root, element("div", { class: "wb-graph-acts" }, ...files)),
  );
  more.addEventListener("keydown", (event) => {
    if (event.key === "Escape") more.open = false;
  });
  const root = element(
    "div",
    { class: "wb-graph-tools" },
    element("div", { class: "wb-graph-tabs", role: "group", "aria-label": "View" }, ...tabs),
    nodes.root,
    collapse.root,
    element("span", { class: "wb-graph-gap" }),
    zooms(view),
    element(
      "a",
      {
        class: "wb-act wb-act-quiet",
        href: `${view.source}/graph.html`,
        download: `${view.file}.html`,
        title: "Its largest nodes, tests and hashes as one HTML file that opens anywhere",
      },
      "Save as a file",
    ),
    more,
  );
  function show() {
    const { state, edits } = view;
    tabs.forEach((tab) =>
      tab.setAttribute("aria-pressed", String(tab.dataset.view === (view.showsList ? "list" : view.view))),
    );
    nodes.set(valueAt(state.nodes), `${count(Math.min(state.nodes, all()))} of ${count(all())}`);
    edges.set(state.edges, `${Math.round(100 * state.edges)} %`);
    collapse.input.checked = state.collapse;
    collapse.root.hidden = !edits.numbers(model).groups.length; // some are of a former graph of this name
  }
  return { root, show };
}

/** The button that saves what is in view. @param {GraphView} view */
export function picture({ canvas, file }) {
  const { edges, nodes, live } = canvas;
  return button("PNG", {
    title: "Save what is in view as a PNG",
    onclick: () => savePicture(canvas.root, [edges, nodes, live], canvas.theme.surface, file),
  });
}

/** The buttons that zoom. @param {GraphView} view */
export function zooms(view) {
  /** @param {number} factor */
  const zoom = (factor) => () => view.canvas.zoomAt(factor, view.canvas.width / 2, view.canvas.height / 2);
  return element(
    "div",
    { class: "wb-graph-zoom" },
    icon("+", "Closer (+)", zoom(1.4)),
    icon("−", "Farther (-)", zoom(1 / 1.4)),
    icon("⤢", "All of it (0)", () => {
      view.canvas.fit();
      view.canvas.redraw();
    }),
  );
}

/** @param {string} text @param {string} title @param {() => void} onclick */
function icon(text, title, onclick) {
  return button(text, { class: "wb-icon", title, "aria-label": title, onclick });
}

/** @param {string} text @param {(on: boolean) => void} changed */
export function box(text, changed) {
  const input = element("input", { type: "checkbox", onchange: () => changed(input.checked) });
  return { input, root: element("label", { class: "wb-graph-box" }, input, text) };
}

/** @param {string} name @param {string} title @param {(value: number) => void} changed */
export function slider(name, title, changed) {
  let timer = 0;
  const input = element("input", {
    type: "range",
    min: "0",
    max: "1",
    step: "0.01",
    "aria-label": `${name}: ${title}`,
  });
  const output = element("output", { class: "wb-graph-share" });
  input.addEventListener("input", () => {
    cancelAnimationFrame(timer);
    timer = requestAnimationFrame(() => changed(Number(input.value)));
  });
  return {
    root: element("label", { class: "wb-graph-slider", title }, name, input, output),
    /** @param {number} value @param {string} text */
    set(value, text) {
      if (document.activeElement !== input) input.value = String(value); // a count is rounded: the thumb stays
      output.textContent = text;
    },
  };
}
