// Draws graphs: an empty element with `data-graph-source` becomes the view of an attribution graph (graph/view.mjs), or
// of a circuit (graph/circuit.mjs); one with `data-story-source` the story of a graph alone, whose boxes open its page.

import { setProps } from "./dash.mjs";
import { all, element, whenChanged } from "./dom.mjs";
import { json, messageOf } from "./http.mjs";

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

/** @param {HTMLElement} root */
async function tell(root) {
  root.dataset.storyDrawn = "";
  const { storySource = "", storyHref = "" } = root.dataset;
  try {
    const [{ StoryDrawing }, found] = await Promise.all([import("./graph/story.mjs"), json(storySource)]);
    const { story, answer, chance } = /** @type {Pick<GraphFile, "answer" | "chance"> & { story: Story? }} */ (found);
    if (!story) throw new Error("This graph has no story; open it to see its nodes.");
    const opened = (/** @type {number} */ box) => setProps("nav", { href: `${storyHref}?box=${box}&view=graph` });
    new StoryDrawing(root, story, { answer, chance, opened });
  } catch (error) {
    root.replaceChildren(element("p", { class: "wb-none" }, messageOf(error)));
  }
}

function tellAll() {
  for (const root of all("[data-story-source]:not([data-story-drawn])")) tell(root);
}

whenChanged(tellAll, { childList: true });
whenChanged(draw, { childList: true });
