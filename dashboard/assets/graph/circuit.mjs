// The view of a circuit: its edges are chosen too, and what is shown and chosen goes to the rest of the page, which Dash
// draws (dashboard/circuit): the evidence, the curve, the table.

import { setProps } from "../dash.mjs";
import { button, element, under } from "../dom.mjs";
import { bodyOf, messageOf, search } from "../http.mjs";
import { box, picture, slider, zooms } from "./controls.mjs";
import { GraphView } from "./view.mjs";

const VIAS = ["q: query", "k: key", "v: value", "into an MLP or the logits"];
const FIELDS = "input, textarea, select, [contenteditable], [role=slider], .ag-root";

export class CircuitView extends GraphView {
  scrolls = true;
  told = ""; // the part that the rest of the page shows
  /** @type {string[]} */
  picked = []; // ids of nodes or edges

  get circuit() {
    return /** @type {CircuitContent} */ (this.content);
  }

  /** @param {URLSearchParams} query @param {any} shown */
  read(query, shown) {
    const { n, paths } = /** @type {ShownCircuit} */ (shown);
    this.state = {
      ...{ nodes: 0, edges: 1, target: null, background: true },
      n,
      paths,
      collapse: query.get("collapse") === "1",
    };
    this.picked = (query.get("at") ?? "").split(",").filter(Boolean);
    this.chosen = this.model.numbers.get(this.picked[0]) ?? null;
  }

  /** The shown edges, as the server is asked for them. */
  get shownPart() {
    const { n = null, paths = false } = this.state;
    return { n, paths };
  }

  want() {
    this.wanted = bodyOf(this.shownPart);
  }

  about() {
    return `Graph of the circuit. The table below lists the same edges.`;
  }

  furnish() {
    this.controls = controls(this);
    this.legend = element("div", { class: "wb-legend" });
    this.root.replaceChildren(this.controls.root, this.notice, this.area, this.legend, this.groups.root);
    /** @param {MouseEvent} event */
    this.followed = (event) => {
      const link = under(event, "[data-circuit-at]"),
        row = under(event, "#circuit-grid [row-id]");
      if (link) this.pick((link.dataset.circuitAt ?? "").split(",").filter(Boolean), true);
      else if (row) this.pick([row.getAttribute("row-id") ?? ""], true);
    };
    /** @param {KeyboardEvent} event */
    this.pressedKey = (event) => {
      const ours = event.target === document.body && ["+", "=", "-", "0", "Escape"].includes(event.key);
      if (ours && !under(event, FIELDS)) this.pointer.key(event);
    };
    document.addEventListener("click", this.followed);
    document.addEventListener("keydown", this.pressedKey);
  }

  get showsList() {
    return false;
  }

  draw() {
    super.draw();
    if (this.told && this.told !== this.known) setProps("circuit-view", { data: this.shownPart });
    this.told = this.known;
  }

  drawSide() {
    this.groups.draw();
    const { lines, roles = [] } = this.canvas.theme,
      { via = [], weight, role = [] } = this.model,
      used = new Set(via);
    /** @param {string} look @param {Attributes["style"]} style @param {string} text */
    const key = (look, style, text) => element("span", {}, element("i", { class: look, style }), text);
    this.legend?.replaceChildren(
      ...VIAS.flatMap((text, i) => (used.has(i) ? [key("wb-line", { background: lines[2 * i][0] }, text)] : [])),
      ...(weight.some((w) => w < 0) ? [key("wb-line wb-line-dashed", {}, "negative score")] : []),
      key("", {}, "width: score"),
      ...(this.part.joined?.length ? [key("wb-line wb-line-dotted", {}, "one head, from position to position")] : []),
      ...this.circuit.roles.flatMap((text, i) =>
        role.includes(i) ? [key("wb-box wb-box-full", { background: roles[i] }, text)] : [],
      ),
    );
  }

  lay() {
    super.lay();
    this.canvas.link = this.linkOf(this.picked[0]);
  }

  tell() {
    super.tell();
    if (!this.scene.items.length) this.say(this.part.said ?? "");
    else if (!this.notice.classList.contains("wb-graph-failed")) this.say("");
  }

  /** @param {Item} item */
  describe(item) {
    const { model } = this;
    if (item.node < 0) return [item.label, item.members.map((i) => model.ids[i]).join(", ")];
    const role = this.circuit.roles[item.role];
    return [item.label, role ?? "", item.size ? `strongest edge ${item.size}` : ""].filter(Boolean);
  }

  // What is chosen

  /** Number of the link that draws an edge, or -1. @param {string | undefined} id */
  linkOf(id) {
    const { model, scene } = this,
      e = id === undefined ? -1 : model.edgeIds.indexOf(id),
      { from, to, via } = scene.links;
    const [a, b] = [scene.at[model.source[e]], scene.at[model.target[e]]];
    return e < 0 ? -1 : from.findIndex((start, k) => start === a && to[k] === b && via[k] === model.via?.[e]);
  }

  /** Ids of the shown edges that a link draws: of lines between groups, several. @param {number} link */
  edgesOf(link) {
    const { model, scene, shown } = this,
      { from, to, via } = scene.links;
    return model.edgeIds.filter(
      (_, e) =>
        shown.edge[e] &&
        scene.at[model.source[e]] === from[link] &&
        scene.at[model.target[e]] === to[link] &&
        model.via?.[e] === via[link],
    );
  }

  /** @param {Item | null} item @param {number} x @param {number} y */
  pressed(item, x, y) {
    const link = item ? -1 : this.canvas.linkAt(x, y);
    if (link >= 0) this.pick(this.edgesOf(link));
    else this.pick(item ? item.members.map((i) => this.model.ids[i]) : []);
  }

  /** @param {number | null} i @param {boolean} [reveal] @param {boolean} [focus] */
  choose(i, reveal = false, focus = false) {
    this.pick(i === null ? [] : [this.model.ids[i]], reveal);
    if (focus) document.getElementById("circuit-side")?.focus();
  }

  /** Choose a node, an edge, or several of them. @param {string[]} ids @param {boolean} [reveal] */
  pick(ids, reveal = false) {
    this.picked = ids;
    this.chosen = this.model.numbers.get(ids[0]) ?? null;
    const at = this.chosen === null ? -1 : this.scene.at[this.chosen];
    this.canvas.light(-1, at, -1, this.linkOf(ids[0]));
    if (reveal && at >= 0) this.canvas.reveal(this.scene.items[at]);
    this.tellChosen();
    setProps("circuit-chosen", { data: ids.join(",") || null });
    this.address();
  }

  /** Nodes are let go; they have no pins. @param {string} key @param {number | null} i */
  act(key, i) {
    return key === "Escape" && super.act(key, i);
  }

  /** The shown edges in an address. */
  get query() {
    const { n, paths } = this.shownPart;
    return { n: n === null ? "" : String(n), paths: paths ? "1" : "" };
  }

  addressOf(part = {}) {
    const at = this.picked.join(","),
      collapse = this.state.collapse ? "1" : "";
    return `/circuit/${this.name}${search({ ...this.query, at, collapse, ...part })}`;
  }

  // Groups

  /** @returns {[string, string, () => void][]} */
  get proposals() {
    return Object.entries(this.circuit.proposals).map(([by, text]) => [
      `Group ${text}`,
      "Replaces these groups",
      () => this.propose(by),
    ]);
  }

  /** @param {string} by */
  async propose(by) {
    try {
      const { groups } = /** @type {Proposed} */ (await this.ask("groups.json", { by, ...this.shownPart }));
      if (!groups.length) return this.say("No two of the shown nodes belong together in this way.");
      this.state.collapse = true;
      this.edits.regroup(groups);
    } catch (error) {
      this.say(messageOf(error), true);
    }
  }

  close() {
    super.close();
    if (this.followed) document.removeEventListener("click", this.followed);
    if (this.pressedKey) document.removeEventListener("keydown", this.pressedKey);
  }
}

/** The line of controls above a circuit. @param {CircuitView} view */
function controls(view) {
  const { model, circuit } = view,
    { limit, found } = circuit;
  /** The slider grows by factors, from one edge to all. @param {number} n */
  const positionOf = (n) => (limit > 1 ? Math.log(n) / Math.log(limit) : 1);
  const edges = slider("Edges", "Number of edges, the strongest first", (value) =>
    view.change({ n: Math.max(1, Math.min(limit, Math.round(limit ** value))) }),
  );
  const score = element("input", {
    type: "number",
    class: "wb-native",
    min: "0",
    step: "any",
    placeholder: "|score| ≥",
    "aria-label": "Smallest score, by size",
    onchange: () => {
      const least = Number(score.value);
      if (score.value) view.change({ n: Math.max(1, model.weight.filter((w) => Math.abs(w) >= least).length) });
    },
  });
  const whole = button("As found", { title: "The circuit as it was found", onclick: () => view.change({ n: null }) });
  const paths = box("only edges on a path from input to output", (on) => view.change({ paths: on }));
  paths.root.hidden = !circuit.has_ends;
  const collapse = box("collapse groups", (on) => view.change({ collapse: on }));
  const file = element(
    "a",
    { class: "wb-act wb-act-quiet", title: "The shown circuit, as `Circuit.load` reads it" },
    "JSON",
  );
  const root = element(
    "div",
    { class: "wb-graph-tools" },
    edges.root,
    score,
    whole,
    paths.root,
    collapse.root,
    element("span", { class: "wb-graph-gap" }),
    zooms(view),
    picture(view),
    file,
  );
  function show() {
    const { state, edits, part, shownPart } = view,
      size = shownPart.n === null && !shownPart.paths ? "" : `-${part.edges.length}-edges`;
    edges.set(positionOf(shownPart.n ?? found), part.said ?? "");
    paths.input.checked = shownPart.paths;
    collapse.input.checked = state.collapse;
    collapse.root.hidden = !edits.numbers(model).groups.length;
    file.href = `${view.source}/export.json${search(view.query)}`;
    file.download = `${view.file}${size}.json`;
  }
  return { root, show };
}
