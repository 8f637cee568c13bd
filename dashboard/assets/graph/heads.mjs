// Why an edge crosses positions: its split by the last head that moves it, each with a link to the head's attention and
// the reasons for it, pairs of nodes that its query and its key read.

import { button, element, menu, recordsTable, short, signed } from "../dom.mjs";
import { failure, tokenText } from "./marks.mjs";
import { KINDS } from "./model.mjs";

const CROSSING = 12;
/** Parts of a score that are no node. @type {Record<string, string>} */
const LOOSE = { pos_embed: "position", bias: "biases", cap: "cap of the score" };

export class Heads {
  /** @param {GraphView} view */
  constructor(view) {
    this.view = view;
    this.visitor = Math.random().toString(36).slice(2);
    this.ticket = 0;
    this.source = -1;
    this.asked = -1; // the source of the edge that was clicked
    this.drawnFor = -1;
    this.reader = -1; // the target of the edge that was split
    this.behind = new Set(); // nodes from which edges lead to it
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
    if (model.into[i].some((e) => model.source[e] === this.asked) && !sources.includes(this.asked))
      if (model.position[this.asked] !== model.position[i]) sources.unshift(this.asked);
    if (!sources.length) return null;
    if (sources.includes(this.asked)) this.source = this.asked;
    if (this.drawnFor !== i) this.answer.replaceChildren();
    this.drawnFor = i;
    if (!sources.includes(this.source)) [this.source] = sources;
    const choices = sources.map((k) => [
      String(k),
      `${tokenText(this.view.labelOf(k), 24)} on ${tokenText(model.tokens[model.position[k]], 12)}`,
    ]);
    const choose = (/** @type {string} */ k) => {
      this.asked = this.source = Number(k);
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

  /** Split an edge that was clicked. @param {number} source @param {number} target */
  open(source, target) {
    const { model } = this.view,
      crosses = model.position[source] !== model.position[target];
    this.asked = crosses ? source : -1;
    this.opened ||= crosses;
    this.view.choose(target);
    if (crosses) this.run(source, target);
  }

  /** @param {number} source @param {number} target */
  run(source, target) {
    this.reader = target;
    if (this.view.reasons.reader >= 0) this.view.tellReasons(-1, []);
    const [from, to] = [source, target].map((k) => this.view.model.ids[k]);
    return this.ask(this.answer, "split.json", { source: from, target: to }, (found) =>
      this.shares(/** @type {Split} */ (found)),
    );
  }

  /**
   * Show the answer of the server in an element, unless something else was asked meanwhile.
   * @param {HTMLElement} into @param {string} file @param {object} body @param {(found: unknown) => HTMLElement[]} shown
   */
  async ask(into, file, body, shown) {
    const ticket = ++this.ticket;
    into.replaceChildren(element("p", { class: "wb-note" }, "Following the edge through the model…"));
    try {
      const found = await this.view.ask(file, { ...body, visitor: this.visitor });
      if (ticket === this.ticket) into.replaceChildren(...shown(found));
    } catch (error) {
      if (ticket === this.ticket) into.replaceChildren(failure(error));
    }
  }

  /** @param {Split} given */
  shares({ total, heads }) {
    const why = element("div", { class: "wb-graph-why" });
    const rows = heads.map((row) => [
      element("a", { class: "wb-link", href: row.href }, row.head),
      element("span", { class: "wb-token" }, tokenText(row.token, 14)),
      signed(row.effect),
      short(row.attention),
      button("why", {
        class: "wb-link",
        "data-act": "reasons",
        "aria-label": `Why ${row.head} attends to ${tokenText(row.token, 14)}`,
        onclick: () => {
          const { layer, number: head, query, position: key } = row;
          this.ask(why, "reasons.json", { layer, head, query, key }, (found) =>
            this.reasons(/** @type {Reasons} */ (found)),
          );
        },
      }),
    ]);
    return [
      element("p", { class: "wb-note" }, `The edge: ${signed(total)}. Its largest shares:`),
      recordsTable(["head", "reads", "share", "attention", ""], rows),
      why,
    ];
  }

  /** @param {Reasons} given */
  reasons({ headline, query_side: query, key_side: key, pairs, rest, left_out: left }) {
    const { model } = this.view,
      parts = new Set([...query, ...key].map(({ node }) => node));
    for (const id of left) if (parts.has(id) && !model.numbers.has(id)) model.add(id);
    const read = [...parts].flatMap((id) => model.numbers.get(id) ?? []);
    this.behind = model.behind(this.reader);
    this.view.tellReasons(
      this.reader,
      read.filter((k) => k !== this.reader),
    );
    const line = (/** @type {NodeShare} */ { node, value, low, high }) => [
      this.name(node),
      value < low || value > high ? element("strong", {}, signed(value)) : signed(value),
      element("span", { class: "wb-quiet" }, `${signed(low)} to ${signed(high)}`),
    ];
    const side = (/** @type {NodeShare[]} */ shares) => recordsTable(["node", "score", "null"], shares.map(line));
    const rows = pairs.map((row) => [this.name(row.query_node), this.name(row.key_node), signed(row.relative)]);
    rows.push([element("span", { class: "wb-quiet" }, "all other pairs"), element("span"), signed(rest)]);
    return [
      element("p", {}, headline),
      element("h4", {}, "The query comes from"),
      side(query),
      element("p", { class: "wb-note" }, "Null: any node with every other key."),
      element("h4", {}, "The key comes from"),
      side(key),
      element(
        "p",
        { class: "wb-note" },
        "Null: any node at every other key. Bold: outside of it; never with fewer than three other keys.",
      ),
      element("h4", {}, "Pairs of query and key"),
      element("div", { class: "wb-graph-pairs" }, recordsTable(["query", "key", "score"], rows)),
    ];
  }

  /** A node with its token, or a part of the score that is no node. @param {string} id */
  name(id) {
    const { model } = this.view,
      k = model.numbers.get(id),
      on = (/** @type {number} */ position) => tokenText(model.tokens[position] ?? "", 12),
      [, left] = id.match(/^other:(\d+)$/) ?? [];
    if (k === undefined)
      return element(
        "span",
        { class: "wb-quiet" },
        left ? `not in this graph, on ${on(Number(left))}` : (LOOSE[id] ?? id),
      );
    const label = tokenText(this.view.labelOf(k), 24),
      alone = this.behind.has(k) ? "" : ", by query and key alone",
      text = `${model.kind[k] === KINDS.TOKEN ? `token ${label}` : `${label} on ${on(model.position[k])}`}${alone}`;
    return button(text, {
      class: "wb-link",
      title: `layer ${model.layer[k]}`,
      onclick: () => this.view.choose(k, true),
    });
  }
}
