// The line of controls above a graph: view, thresholds, target, collapse, undo, and pictures.

import { element } from "../dom.mjs";

/** Build the controls of a view; `show()` sets them to its state. @param {GraphView} view */
export function controls(view) {
  const { model } = view;
  const tabs = [
    ["graph", "Graph"],
    ["list", "List"],
  ].map(([key, text]) =>
    element("button", { type: "button", class: "wb-graph-tab", "data-view": key, onclick: () => view.show(key) }, text),
  );
  const nodes = slider("Nodes", "Share of all influence that the shown nodes hold", (value) =>
    view.change({ nodes: value }),
  );
  const edges = slider("Edges", "Share of the edges’ scores that the shown edges hold", (value) =>
    view.change({ edges: value }),
  );
  const usual = act("As traced", "Thresholds at which the graph was pruned", () =>
    view.change({ ...model.usual, target: null }),
  );
  const target = element(
    "select",
    {
      class: "wb-native",
      "aria-label": "Target",
      onchange: () => view.change({ target: target.value === "" ? null : Number(target.value) }),
    },
    element("option", { value: "" }, "all targets"),
    ...model.targets.map((i) =>
      element(
        "option",
        { value: String(i) },
        `only ${JSON.stringify(model.label[i])} ${(100 * model.probability[i]).toFixed(0)} %`,
      ),
    ),
  );
  const collapse = box("collapse groups", (on) => view.change({ collapse: on }));
  const only = box("pinned only", (on) => view.change({ only: on }));
  const background = box("background", (on) => view.change({ background: on }));
  background.root.title = `Also neurons that lead other prompts as much (mean of ${model.prompts}), and errors`;
  background.root.hidden = model.background.size === 0;
  const undo = act("Undo", "Ctrl Z", () => view.edits.undo()),
    redo = act("Redo", "Ctrl Shift Z", () => view.edits.redo());
  const pictures = [
    act("PNG", "Save the graph as a PNG", () => view.save("png")),
    act("SVG", "Save the graph as an SVG", () => view.save("svg")),
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
  /** @param {number} factor */
  const zoom = (factor) => () => view.canvas.zoomAt(factor, view.canvas.width / 2, view.canvas.height / 2);
  const views = element(
    "div",
    { class: "wb-graph-zoom" },
    icon("+", "Closer (+)", zoom(1.4)),
    icon("−", "Farther (-)", zoom(1 / 1.4)),
    icon("⤢", "All of it (0)", () => {
      view.canvas.fit();
      view.canvas.redraw();
    }),
  );
  const root = element(
    "div",
    { class: "wb-graph-tools" },
    element("div", { class: "wb-graph-tabs", role: "group", "aria-label": "View" }, ...tabs),
    nodes.root,
    edges.root,
    usual,
    target,
    collapse.root,
    only.root,
    background.root,
    element("span", { class: "wb-graph-gap" }),
    views,
    undo,
    redo,
    ...pictures,
    view.status,
  );
  function show() {
    const { state, edits } = view;
    tabs.forEach((tab) => tab.setAttribute("aria-pressed", String((tab.dataset.view === "list") === view.showsList)));
    nodes.set(state.nodes);
    edges.set(state.edges);
    usual.disabled = state.nodes === model.usual.nodes && state.edges === model.usual.edges && state.target === null;
    target.value = state.target === null ? "" : String(state.target);
    collapse.input.checked = state.collapse;
    only.input.checked = state.only;
    background.input.checked = state.background;
    undo.disabled = !edits.past.length;
    redo.disabled = !edits.future.length;
  }
  return { root, show };
}

/** @param {string} text @param {string} title @param {() => void} onclick */
function act(text, title, onclick) {
  return element("button", { type: "button", class: "wb-act wb-act-quiet", title, onclick }, text);
}

/** @param {string} text @param {string} title @param {() => void} onclick */
function icon(text, title, onclick) {
  return element("button", { type: "button", class: "wb-icon", title, "aria-label": title, onclick }, text);
}

/** @param {string} text @param {(on: boolean) => void} changed */
function box(text, changed) {
  const input = element("input", { type: "checkbox", onchange: () => changed(input.checked) });
  return { input, root: element("label", { class: "wb-graph-box" }, input, text) };
}

/** @param {string} name @param {string} title @param {(value: number) => void} changed */
function slider(name, title, changed) {
  let timer = 0;
  const input = element("input", {
    type: "range",
    min: "0",
    max: "1",
    step: "0.01",
    "aria-label": `${name}: ${title}`,
  });
  const output = element("output", { class: "wb-graph-share" });
  const tell = () => {
    output.textContent = `${Math.round(100 * Number(input.value))} %`;
  };
  input.addEventListener("input", () => {
    tell();
    cancelAnimationFrame(timer);
    timer = requestAnimationFrame(() => changed(Number(input.value)));
  });
  return {
    root: element("label", { class: "wb-graph-slider", title }, name, input, output),
    /** @param {number} value */
    set(value) {
      if (Number(input.value) !== value) input.value = String(value);
      tell();
    },
  };
}
