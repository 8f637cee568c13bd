// The list view: every shown node as a row of a table that the keyboard alone can read, pin and name.

import { button, element, short, under } from "../dom.mjs";
import { tokenText } from "./marks.mjs";
import { KIND_NAMES, KINDS } from "./model.mjs";

const BLOCK = 200;
/** @type {[name: string, title: string, order: (row: GraphRow) => string | number][]} */
const COLUMNS = [
  ["label", "Node", (row) => row.label.toLowerCase()],
  ["kind", "Kind", (row) => row.kind],
  ["layer", "Layer", (row) => row.layer],
  ["position", "Token", (row) => row.position],
  ["activation", "Activation", (row) => -row.activation],
  ["influence", "Influence", (row) => -row.influence - row.probability],
  ["state", "State", (row) => row.state || "~"],
];

export class List {
  /** @type {ListContent} */
  content;

  /** @param {HTMLElement} root @param {Model} model @param {ListReports} on */
  constructor(root, model, on) {
    this.root = root;
    this.model = model;
    this.on = on;
    this.sort = "influence";
    this.filter = "";
    this.limit = BLOCK;
    /** @type {GraphRow[]} */
    this.rows = [];
    this.at = 0; // the row that Tab reaches
    this.focused = -1; // its node
    this.input = element("input", {
      type: "search",
      class: "wb-graph-filter",
      placeholder: "filter nodes",
      "aria-label": "Filter nodes",
    });
    this.input.addEventListener("input", () => {
      this.filter = this.input.value;
      this.limit = BLOCK;
      this.draw();
    });
    this.head = element("tr");
    this.body = element("tbody");
    this.table = element(
      "table",
      { class: "wb-graph-table", role: "grid", "aria-label": "Nodes of the graph" },
      element("thead", {}, this.head),
      this.body,
    );
    this.more = button("", {
      class: "wb-link",
      onclick: () => {
        this.limit += BLOCK;
        this.draw();
      },
    });
    const keys = "Arrow keys move, Enter opens, p pins, n names, Escape clears.";
    root.replaceChildren(
      element("div", { class: "wb-graph-list-head" }, this.input, element("span", { class: "wb-quiet" }, keys)),
      element("div", { class: "wb-graph-list-body" }, this.table),
      this.more,
    );
    this.body.addEventListener("keydown", (event) => this.key(event));
    this.body.addEventListener("click", (event) => {
      const row = under(event, "tr");
      if (row) this.on.opened(Number(row.dataset.node));
    });
  }

  /** @param {Partial<ListContent>} given */
  show(given) {
    this.content = { ...this.content, ...given };
    this.draw();
  }

  draw() {
    const { model } = this,
      { scene, edits } = this.content;
    const words = this.filter.trim().toLowerCase();
    const shown = new Set(scene.items.flatMap((item) => item.members));
    const all = [...shown].map((i) => ({
      i,
      label: this.content.labelOf(i),
      kind: KIND_NAMES[model.kind[i]],
      layer: model.layer[i],
      position: model.position[i],
      activation: model.activation[i],
      influence: model.influence[i],
      probability: model.probability[i],
      state: this.state(i, edits),
    }));
    const [, , order] = COLUMNS.find(([name]) => name === this.sort) ?? COLUMNS[0];
    this.rows = all.filter(
      (row) =>
        !words ||
        `${row.label} ${row.kind} L${row.layer} ${model.tokens[row.position]} ${row.state}`
          .toLowerCase()
          .includes(words),
    );
    this.rows.sort((a, b) => (order(a) < order(b) ? -1 : order(a) > order(b) ? 1 : a.i - b.i));
    const here = this.rows.findIndex((row) => row.i === this.focused);
    this.at = Math.max(0, here >= 0 ? here : Math.min(this.at, this.rows.length - 1));
    this.limit = Math.max(this.limit, this.at + 1);
    const had = this.body.contains(document.activeElement);
    this.heading();
    this.body.replaceChildren(...this.rows.slice(0, this.limit).map((row, k) => this.row(row, k)));
    const left = this.rows.length - this.limit;
    this.more.hidden = left <= 0;
    this.more.textContent = `Show ${Math.min(BLOCK, left).toLocaleString("en-US")} more of ${left.toLocaleString("en-US")}`;
    if (had) this.focus(this.at);
  }

  /** @param {number} i @param {ResolvedEdits} edits */
  state(i, edits) {
    const group = edits.groups.find(({ members }) => members.includes(i));
    return [edits.pins.has(i) && "pinned", group && `in ${group.name}`].filter(Boolean).join(", ");
  }

  heading() {
    this.head.replaceChildren(
      ...COLUMNS.map(([name, text]) => {
        const sorting = this.sort === name ? "ascending" : null;
        const sort = () => {
          this.sort = name;
          this.draw();
        };
        const head = { scope: "col", class: `wb-graph-${name}`, "aria-sort": sorting };
        return element("th", head, button(text, { class: "wb-link", onclick: sort }));
      }),
    );
  }

  /** @param {GraphRow} row @param {number} k */
  row(row, k) {
    const { model } = this,
      latent = model.kind[row.i] === KINDS.FEATURE;
    const where = model.kind[row.i] < KINDS.TOKEN ? `L${row.layer}` : "–";
    const cells = [
      element("td", { class: "wb-graph-label", dir: "auto" }, tokenText(row.label, 60)),
      element("td", {}, row.kind),
      element("td", {}, where),
      element(
        "td",
        { class: "wb-graph-position" },
        element("span", { class: "wb-token" }, tokenText(model.tokens[row.position], 14)),
        ` ${row.position}`,
      ),
      element("td", { class: "wb-value" }, latent ? short(row.activation) : "–"),
      element("td", { class: "wb-value" }, short(row.influence)),
      element("td", { class: "wb-graph-state", dir: "auto" }, row.state),
    ];
    return element(
      "tr",
      {
        tabindex: k === this.at ? "0" : "-1",
        "data-node": row.i,
        "aria-selected": String(row.i === this.content.chosen),
      },
      ...cells,
    );
  }

  /** @param {number} k */
  focus(k) {
    const rows = this.body.children;
    if (!rows.length) return;
    const at = Math.max(0, Math.min(k, this.rows.length - 1));
    if (at >= this.limit) {
      this.limit = at + BLOCK;
      this.at = at;
      this.focused = this.rows[at].i;
      this.draw();
    }
    rows[this.at]?.setAttribute("tabindex", "-1");
    this.at = at;
    this.focused = this.rows[at].i;
    rows[at].setAttribute("tabindex", "0");
    /** @type {HTMLElement} */ (rows[at]).focus();
  }

  /** @param {KeyboardEvent} event */
  key(event) {
    const row = under(event, "tr");
    if (event.ctrlKey || event.metaKey || event.altKey || !row || row !== event.target) return;
    const step = { ArrowDown: 1, ArrowUp: -1, PageDown: 15, PageUp: -15, Home: -Infinity, End: Infinity }[event.key];
    this.focused = Number(row.dataset.node);
    if (step !== undefined) this.focus(this.at + step);
    else if (event.key === "Enter") this.on.opened(this.focused, true);
    else if (!this.on.key(event.key, this.focused)) return;
    event.preventDefault();
    event.stopPropagation();
  }
}
