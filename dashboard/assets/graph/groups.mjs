// The groups of a graph: their names and members, what is marked for another one, and proposals.

import { button, count, element, under } from "../dom.mjs";
import { messageOf } from "../http.mjs";
import { groupColour, tokenText } from "./marks.mjs";
import { quiet } from "./panel.mjs";
import { waiting } from "./waiting.mjs";

const MOST_GROUPED = 60; // latents among which groups are looked for: each is ablated in the model

export class Groups {
  /** @param {GraphView} view */
  constructor(view) {
    this.view = view;
    /** @type {HTMLFormElement | null} */
    this.asking = null;
    this.root = element("section", { class: "wb-panel wb-graph-groups", "aria-label": "Groups" });
  }

  draw() {
    const { view } = this,
      groups = view.resolved.groups,
      marked = view.marked.size;
    const theme = view.canvas.theme;
    const rows = groups.map(({ name, members }, g) =>
      element(
        "li",
        {},
        element("span", {
          class: "wb-graph-swatch",
          style: `background: ${groupColour(theme, g)}`,
          "aria-hidden": "true",
        }),
        button(tokenText(name, 40), {
          ...{ class: "wb-link", dir: "auto", title: "Mark its members" },
          onclick: () => view.mark(members),
        }),
        element("span", { class: "wb-quiet" }, count(members.length)),
        view.panel
          ? button("Change", {
              "aria-label": `Change the group ${name}`,
              onclick: () => view.panel.intervene.add(`group ${name}`),
            })
          : null,
        button("Name…", {
          "aria-label": `Name the group ${name}`,
          onclick: (event) => this.renameGroup(under(event, "li"), name),
        }),
        button("Ungroup", { "aria-label": `Ungroup ${name}`, onclick: () => view.edits.ungroup(name) }),
      ),
    );
    const hidden = view.resolved.hidden.size,
      pins = view.resolved.pins.size;
    this.root.replaceChildren(
      element("h2", {}, "Groups"),
      rows.length
        ? element("ol", { class: "wb-graph-group-list" }, ...rows)
        : quiet("Mark similar nodes (Shift-click, or x) and press g, or propose groups."),
      element(
        "div",
        { class: "wb-graph-acts" },
        marked ? button(`Group ${marked} marked…`, { onclick: () => view.act("g", null) }) : null,
        marked ? button("Clear marks", { onclick: () => view.mark([]) }) : null,
        !marked && pins > 1
          ? button(`Mark ${pins} pinned`, { onclick: () => view.mark([...view.resolved.pins]) })
          : null,
        ...view.proposals.map(([text, title, onclick]) => button(text, { title, onclick })),
        hidden
          ? button(`Show ${hidden} hidden`, {
              onclick: () =>
                view.edits.apply((value) => {
                  value.hidden = [];
                }),
            })
          : null,
      ),
    );
  }

  /** @param {Element | null} row @param {string} name */
  renameGroup(row, name) {
    const input = element("input", {
      type: "text",
      maxlength: 80,
      value: name,
      "aria-label": `Name of the group ${name}`,
    });
    this.form(row, input, "Save", (text) => {
      if (text) this.view.edits.renameGroup(name, text);
    });
  }

  /** Ask for the name of a group of these nodes. @param {string[]} ids @param {string} suggestion */
  ask(ids, suggestion) {
    const input = element("input", {
      type: "text",
      maxlength: 80,
      value: suggestion,
      "aria-label": `Name of the group of ${ids.length} nodes`,
    });
    this.form(this.root.querySelector("h2"), input, `Group ${ids.length}`, (text) => {
      if (!text) return;
      this.view.marked.clear();
      this.view.edits.group(text.slice(0, 80), ids);
    });
  }

  /**
   * A line with one input after an element; Enter saves, Escape leaves.
   * @param {Element | null} after @param {HTMLInputElement} input @param {string} text @param {(text: string) => void} save
   */
  form(after, input, text, save) {
    this.asking?.remove();
    const back = document.activeElement;
    const form = element(
      "form",
      { class: "wb-graph-form" },
      input,
      element("button", { type: "submit", class: "wb-act wb-act-quiet" }, text),
    );
    const end = () => {
      form.remove();
      if (back instanceof HTMLElement) back.focus();
    };
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      end();
      save(input.value.trim());
    });
    form.addEventListener("keydown", (event) => {
      event.stopPropagation();
      if (event.key === "Escape") end();
    });
    this.asking = form;
    after?.after(form);
    input.focus();
    input.select();
  }
}

/** Groups of shown latents that change the model alike; one step of undo takes them back. @param {GraphView} view */
export async function proposeGroups(view) {
  const { model, scene } = view,
    { visitor } = view.panel.intervene;
  const nodes = scene.ranked.slice(0, MOST_GROUPED).map((k) => model.ids[scene.items[k].node]);
  view.say(" ");
  try {
    const asking = view.ask("groups.json", { nodes, visitor });
    const found = await waiting(view.notice, visitor, "asking the model", asking);
    const { groups, headline } = /** @type {Proposed} */ (found);
    if (groups.length)
      view.edits.apply((value) => {
        value.groups = groups.map(([name, ids]) => [name.trim().slice(0, 80) || "group", ids]);
      });
    view.say(groups.length ? `${headline} Kept; Undo reverts.` : headline);
  } catch (error) {
    view.say(messageOf(error), true);
  }
}
