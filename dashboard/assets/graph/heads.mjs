// Why an edge crosses positions: its split by the last head that moves it, each with a link to the head's attention.

import { element, short } from "../dom.mjs";
import { tokenText } from "./marks.mjs";

const CROSSING = 12;
const signed = (value) => (value > 0 ? "+" : "") + short(value).replace("-", "−");

export class Heads {
  constructor(view) {
    Object.assign(this, { view, visitor: Math.random().toString(36).slice(2), ticket: 0, source: null });
    this.answer = element("div", { role: "status" });
  }

  /** The part of the side panel for a chosen node, if one of its edges comes from another position. */
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
    const menu = element("select", {
      class: "wb-native",
      "aria-label": "Source of the edge",
      "data-act": "heads-source",
      onchange: () => {
        this.source = Number(menu.value);
      },
    });
    menu.append(
      ...sources.map((k) =>
        element(
          "option",
          { value: String(k), selected: k === this.source },
          `${tokenText(this.view.labelOf(k), 24)} on ${tokenText(model.tokens[model.position[k]], 12)}`,
        ),
      ),
    );
    const run = element(
      "button",
      { type: "button", class: "wb-act wb-act-quiet", "data-act": "heads", onclick: () => this.run(this.source, i) },
      "Split by heads",
    );
    return element(
      "details",
      {
        class: "wb-folded",
        open: this.opened,
        ontoggle: (event) => {
          this.opened = event.target.open;
        },
      },
      element("summary", {}, "Heads that move it"),
      element(
        "p",
        { class: "wb-note" },
        "An edge from another token passes through attention. The last head on each path has a share; the shares add up to the edge.",
      ),
      element("div", { class: "wb-graph-acts" }, menu, run),
      this.answer,
    );
  }

  async run(source, target) {
    const { view } = this,
      ticket = ++this.ticket,
      [from, to] = [source, target].map((k) => view.model.ids[k]);
    this.answer.replaceChildren(element("p", { class: "wb-note" }, "Following the edge through the model…"));
    try {
      const found = await view.ask("split.json", { source: from, target: to, visitor: this.visitor });
      if (ticket === this.ticket) this.answer.replaceChildren(...shares(found));
    } catch (error) {
      if (ticket === this.ticket)
        this.answer.replaceChildren(element("p", { class: "wb-graph-failed" }, error.message));
    }
  }
}

function shares({ total, heads }) {
  const cell = (text) => element("td", {}, text);
  return [
    element("p", { class: "wb-note" }, `The edge: ${signed(total)}. Its largest shares:`),
    element(
      "table",
      { class: "wb-evidence wb-records" },
      element(
        "thead",
        {},
        element(
          "tr",
          {},
          ...["head", "reads", "share", "attention"].map((name) => element("th", { scope: "col" }, name)),
        ),
      ),
      element(
        "tbody",
        {},
        ...heads.map((row) =>
          element(
            "tr",
            {},
            element("td", {}, element("a", { class: "wb-link", href: row.href }, row.head)),
            element("td", {}, element("span", { class: "wb-token" }, tokenText(row.token, 14))),
            cell(signed(row.effect)),
            cell(short(row.attention)),
          ),
        ),
      ),
    ),
  ];
}
