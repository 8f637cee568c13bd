// The groups of a graph: those that it was traced with, or that were proposed.

import { button, count, element } from "../dom.mjs";
import { messageOf } from "../http.mjs";
import { groupColour, tokenText } from "./marks.mjs";
import { quiet } from "./panel.mjs";
import { waiting } from "./waiting.mjs";

const MOST_GROUPED = 60; // latents among which groups are looked for: each is ablated in the model

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

/** Groups of shown latents that change the model alike. @param {GraphView} view */
export async function proposeGroups(view) {
  const { model, scene } = view,
    { visitor } = view.panel.intervene;
  const nodes = scene.ranked.slice(0, MOST_GROUPED).map((k) => model.ids[scene.items[k].node]);
  view.say(" ");
  try {
    const asking = view.ask("groups.json", { nodes, visitor });
    const found = await waiting(view.notice, visitor, "asking the model", asking);
    const { groups, headline } = /** @type {Proposed} */ (found);
    if (groups.length) view.edits.regroup(groups.map(([name, ids]) => [name.trim().slice(0, 80) || "group", ids]));
    view.say(headline);
  } catch (error) {
    view.say(messageOf(error), true);
  }
}
