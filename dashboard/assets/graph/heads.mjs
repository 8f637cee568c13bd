// Why an edge crosses positions: its split by the last head that moves it, each with a link to the head's attention.

import { button, element, menu, recordsTable, short, signed } from "../dom.mjs";
import { failure, tokenText } from "./marks.mjs";

const CROSSING = 12;

export class Heads {
  /** @param {GraphView} view */
  constructor(view) {
    this.view = view;
    this.visitor = Math.random().toString(36).slice(2);
    this.ticket = 0;
    this.source = -1;
    this.drawnFor = -1;
    this.opened = false;
    this.answer = element("div", { role: "status" });
  }

  /**
   * The part of the side panel for a chosen node, if one of its edges comes from another position.
   * @param {number} i
   */
  draw(i) {
    const { model } = this.view;
    const sources = model.into[i]
      .map((e) => model.source[e])
      .filter((k) => model.position[k] !== model.position[i])
      .slice(0, CROSSING);
    if (!sources.length) return null;
    if (this.drawnFor !== i) this.answer.replaceChildren();
    this.drawnFor = i;
    if (!sources.includes(this.source)) [this.source] = sources;
    const choices = sources.map((k) => [
      String(k),
      `${tokenText(this.view.labelOf(k), 24)} on ${tokenText(model.tokens[model.position[k]], 12)}`,
    ]);
    const choose = (/** @type {string} */ k) => {
      this.source = Number(k);
    };
    const sourceMenu = menu("Source of the edge", choices, String(this.source), choose, { "data-act": "heads-source" });
    const run = button("Split by heads", { "data-act": "heads", onclick: () => this.run(this.source, i) });
    const folded = element(
      "details",
      {
        class: "wb-folded",
        open: this.opened,
        ontoggle: () => {
          this.opened = folded.open;
        },
      },
      element("summary", {}, "Heads that move it"),
      element(
        "p",
        { class: "wb-note" },
        "An edge from another token passes through attention; the shares of the last heads add up to it.",
      ),
      element("div", { class: "wb-graph-acts" }, sourceMenu, run),
      this.answer,
    );
    return folded;
  }

  /** @param {number} source @param {number} target */
  async run(source, target) {
    const { view } = this,
      ticket = ++this.ticket,
      [from, to] = [source, target].map((k) => view.model.ids[k]);
    this.answer.replaceChildren(element("p", { class: "wb-note" }, "Following the edge through the model…"));
    try {
      const found = await view.ask("split.json", { source: from, target: to, visitor: this.visitor });
      if (ticket === this.ticket) this.answer.replaceChildren(...shares(/** @type {Split} */ (found)));
    } catch (error) {
      if (ticket === this.ticket) this.answer.replaceChildren(failure(error));
    }
  }
}

/** @param {Split} given */
function shares({ total, heads }) {
  const rows = heads.map((row) => [
    element("a", { class: "wb-link", href: row.href }, row.head),
    element("span", { class: "wb-token" }, tokenText(row.token, 14)),
    signed(row.effect),
    short(row.attention),
  ]);
  return [
    element("p", { class: "wb-note" }, `The edge: ${signed(total)}. Its largest shares:`),
    recordsTable(["head", "reads", "share", "attention"], rows),
  ];
}
