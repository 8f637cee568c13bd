// A graph as a file that opens from disk (dashboard/graph/_file.py): its story, and the nodes of a box as a table.

import { all, element, recordsTable, signed } from "../dom.mjs";
import { tokenText } from "./marks.mjs";
import { KIND_NAMES, KINDS } from "./model.mjs";
import { emphasised, StoryDrawing } from "./story.mjs";

/** Draw the story that the file holds. */
export function open() {
  const { story, nodes, tokens, answer, chance } = /** @type {GraphFile} */ (
    JSON.parse(document.getElementById("graph")?.textContent ?? "")
  );
  const [root] = all("[data-story]"),
    [below] = all("[data-opened]");
  new StoryDrawing(root, story, { answer, chance, opened: show });

  /** @param {number} k */
  function show(k) {
    const box = story.boxes[k],
      rows = box.nodes.map((i) => nodes[i]).sort((a, b) => Math.abs(b.effect) - Math.abs(a.effect));
    const head = element("h2", { tabindex: "-1" }, ...emphasised(box.name));
    below.className = "wb-panel";
    below.replaceChildren(
      head,
      element("p", { class: "wb-note" }, `Effects in logits; those below 0 argue against ${tokenText(answer, 30)}.`),
      recordsTable(
        ["node", "layer", "on", "effect"],
        rows.map(({ label, kind, layer, position, index, effect }) => [
          tokenText(label || `${KIND_NAMES[kind]} ${index}`, 90),
          kind < KINDS.TOKEN ? String(layer) : "",
          tokenText(tokens[position], 20),
          signed(effect),
        ]),
      ),
    );
    head.focus();
  }
}
