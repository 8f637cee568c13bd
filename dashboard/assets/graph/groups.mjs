// The groups of a graph: those of the file that it came from, or that were proposed.

import { button, count, element } from "../dom.mjs";
import { groupColour, tokenText } from "./marks.mjs";
import { quiet } from "./panel.mjs";

export class Groups {
  /** @param {GraphView} view */
  constructor(view) {
    this.view = view;
    this.root = element("section", { class: "wb-panel wb-graph-groups", "aria-label": "Groups" });
  }

  draw() {
    const { view } = this,
      { groups } = view.resolved;
    const rows = groups.map(({ name, members }, g) =>
      element(
        "li",
        {},
        element("span", {
          class: "wb-graph-swatch",
          style: `background: ${groupColour(view.canvas.theme, g)}`,
          "aria-hidden": "true",
        }),
        element("span", { class: "wb-graph-group-name", dir: "auto" }, tokenText(name, 40)),
        element("span", { class: "wb-quiet" }, count(members.length)),
        view.panel
          ? button("Change", {
              "aria-label": `Change the group ${name}`,
              onclick: () => view.panel.intervene.add(`group ${name}`),
            })
          : null,
      ),
    );
    this.root.hidden = !rows.length && !view.proposals.length;
    this.root.replaceChildren(
      element("h2", {}, "Groups"),
      rows.length ? element("ol", { class: "wb-graph-group-list" }, ...rows) : quiet("None."),
      element(
        "div",
        { class: "wb-graph-acts" },
        ...view.proposals.map(([text, title, onclick]) => button(text, { title, onclick })),
        rows.length ? button("Ungroup all", { onclick: () => view.edits.regroup([]) }) : null,
      ),
    );
  }
}
