// The view of an attribution graph: holds what is chosen and shown, and passes it to canvas, list, panel and address.

import { count, element, short, signed } from "../dom.mjs";
import { bodyOf, json, messageOf, search } from "../http.mjs";
import { Canvas, FRAME } from "./canvas.mjs";
import { controls } from "./controls.mjs";
import { Edits } from "./edits.mjs";
import { Groups } from "./groups.mjs";
import { List } from "./list.mjs";
import { tokenText } from "./marks.mjs";
import { KIND_NAMES, KINDS, Model } from "./model.mjs";
import { Panel } from "./panel.mjs";
import { Pointer } from "./pointer.mjs";
import { labelOf, layOut, makeScene, marks, withReasons } from "./scene.mjs";

const NARROW = "(max-width: 700px)";

export class GraphView {
  /** @type {Map<number, Described>} */
  described = new Map();
  /** @type {number | null} */
  chosen = null;
  view = "graph";
  scrolls = false; // the wheel moves the page, and zooms with Ctrl alone
  closed = false;
  /** @type {string | null} */
  problem = null; // of the address

  /** @type {GraphContent} */
  content;
  /** @type {Model} */
  model;
  /** @type {GraphState} */
  state;
  /** @type {Edits} */
  edits;

  // what is drawn, and the request for it
  /** @type {GraphPart} */
  part;
  /** @type {Shown} */
  shown;
  wanted = "";
  known = "";
  /** @type {Promise<void> | null} */
  asking = null;
  /** @type {ResolvedEdits} */
  resolved;
  /** @type {Scene} */
  scene;
  /** @type {Layout | undefined} */
  layout;

  // parts of the page, see `build`
  /** @type {HTMLElement} */
  area;
  /** @type {HTMLElement} */
  notice;
  /** @type {HTMLElement} */
  tip;
  /** @type {HTMLElement} */
  listed;
  /** @type {ReturnType<typeof controls>} */
  controls;
  /** @type {Canvas} */
  canvas;
  /** @type {Groups} */
  groups;
  /** @type {Panel} */
  panel;
  /** @type {List} */
  list;
  /** @type {Pointer} */
  pointer;
  /** @type {MediaQueryList} */
  media;

  /** @param {HTMLElement & { graphView?: GraphView }} root */
  constructor(root) {
    this.root = root;
    this.reasons = { reader: -1, read: /** @type {number[]} */ ([]) };
    this.source = root.dataset.graphSource ?? "";
    this.name = root.dataset.graphName ?? "";
    /** @type {Record<string, GraphTheme>} */
    this.themes = JSON.parse(root.dataset.colours ?? "{}");
    root.graphView = this;
    this.started = this.start().catch((error) => this.fail(error));
  }

  async start() {
    this.content = /** @type {GraphContent} */ (await this.ask(`graph.json${location.search}`));
    const { edits, shown, part } = this.content;
    this.model = new Model(this.content);
    this.edits = new Edits(this.source, edits, {
      changed: () => this.refresh(),
      saved: () => {
        this.root.dataset.saved = JSON.stringify(this.edits.was);
        if (this.notice.classList.contains("wb-graph-failed")) this.say("");
      },
      failed: (message) => this.say(message, true),
    });
    this.read(new URLSearchParams(location.search), shown);
    this.take(part, bodyOf(shown));
    if (this.closed) return;
    this.build();
    this.refresh();
    this.root.dataset.ready = String(Math.round(performance.now()));
  }

  /** What the address says, and the part that the server shows for it. @param {URLSearchParams} query @param {any} shown */
  read(query, shown) {
    const { model } = this,
      { nodes, edges, target, pins } = /** @type {ShownPart} */ (shown);
    this.state = {
      nodes,
      edges,
      target: target === null ? null : (model.numbers.get(target) ?? null),
      collapse: query.get("collapse") === "1",
      background: query.get("background") === "1",
    };
    this.view = query.get("view") === "list" ? "list" : "graph";
    const at = query.get("at");
    this.chosen = model.numbers.get(at ?? "") ?? null;
    if (at && this.chosen === null) this.problem = `This graph has no node ${at.slice(0, 60)}.`;
    this.edits.value.pins = pins;
  }

  build() {
    this.notice = element("div", { class: "wb-graph-notice", role: "alert", hidden: true });
    this.area = element("div", { class: "wb-graph-area", tabindex: "0", role: "application" });
    this.tip = element("div", { class: "wb-graph-tip", hidden: true, "aria-hidden": "true" });
    this.listed = element("div", { class: "wb-graph-list", hidden: true });
    this.canvas = new Canvas(this.area, this.themes);
    this.canvas.tokenTexts = this.model.tokens;
    this.area.append(this.tip);
    this.groups = new Groups(this);
    this.furnish();
    this.pointer = new Pointer(this);
    this.area.setAttribute(
      "aria-label",
      `${this.about()} Arrow keys move along edges and layers, Enter opens, plus and minus zoom.`,
    );
    this.media = window.matchMedia(NARROW);
    this.media.onchange = () => this.refresh();
    this.observe();
  }

  about() {
    return `Attribution graph of ${count(this.model.n)} nodes. The list view has the same nodes.`;
  }

  /** What stands around the canvas. */
  furnish() {
    const aside = element("aside", { class: "wb-graph-side", "aria-label": "Details" });
    this.controls = controls(this);
    this.root.replaceChildren(
      this.controls.root,
      this.notice,
      element(
        "div",
        { class: "wb-graph-body" },
        element("div", { class: "wb-graph-main" }, this.area, this.listed),
        aside,
      ),
    );
    this.panel = new Panel(aside, this);
    this.list = new List(this.listed, this.model, {
      opened: (i, focus) => this.choose(i, false, focus),
      key: (key, i) => this.act(key, i),
    });
  }

  observe() {
    this.resizer = new ResizeObserver(() => {
      const { clientWidth: width, clientHeight: height } = this.area;
      if (!width || !height || (width === this.canvas.width && height === this.canvas.height)) return;
      this.canvas.resize(width, height);
      this.lay();
    });
    this.resizer.observe(this.area);
    this.schemes = new MutationObserver(() => {
      this.canvas.redraw();
      this.drawSide();
    });
    this.schemes.observe(document.documentElement, { attributes: true, attributeFilter: ["data-scheme"] });
  }

  get showsList() {
    return this.view === "list" || (this.view === "graph" && this.media.matches);
  }

  // From state to pictures

  /** Draw what is chosen by now; where another part of the graph is shown, once the server has said which. */
  refresh() {
    this.want();
    this.controls.show();
    this.address();
    if (this.wanted === this.known) return this.draw();
    this.asking ??= this.follow();
    return this.asking;
  }

  want() {
    const { nodes, edges, target, background } = this.state,
      { pins } = this.edits.value,
      usual = background ? [] : [...this.model.background].map((i) => this.model.ids[i]);
    this.wanted = bodyOf({
      nodes,
      edges,
      target: target === null ? null : this.model.ids[target],
      pins,
      hidden: usual.filter((id) => !pins.includes(id)),
    });
  }

  async fetchPart() {
    const asked = this.wanted,
      found = await this.ask("part.json", JSON.parse(asked));
    this.take(/** @type {GraphPart} */ (found), asked);
  }

  /** Hold what the server shows for a request. @param {GraphPart} part @param {string} asked */
  take(part, asked) {
    this.part = part;
    const { nodes, edges, effects, joined = [] } = part;
    this.model.rank(effects);
    this.shown = { node: marks(this.model.n, nodes), edge: marks(this.model.m, edges), joined };
    this.known = asked;
  }

  /** Ask and draw until nothing has changed meanwhile: one request at a time. */
  async follow() {
    try {
      while (this.wanted !== this.known && !this.closed) {
        await this.fetchPart();
        if (!this.closed) this.draw();
      }
    } catch (error) {
      this.say(`The graph is shown as it was: ${messageOf(error)}`, true);
    }
    this.asking = null;
  }

  draw() {
    this.resolved = this.edits.numbers(this.model);
    this.stage();
    const list = this.showsList;
    this.tellChosen();
    this.area.hidden = list;
    this.listed.hidden = !list;
    this.root.dataset.view = list ? "list" : this.view;
    if (list)
      this.list.show({
        scene: this.scene,
        edits: this.resolved,
        /** @param {number} i */
        labelOf: (i) => this.labelOf(i),
        chosen: this.chosen,
      });
    this.lay();
    this.drawSide();
    this.controls.show();
    this.tell();
  }

  stage() {
    const { model, state, resolved } = this;
    this.scene = makeScene(model, withReasons(model, this.shown, this.reasons), state, resolved);
  }

  /** Draw a dashed line from nodes that the query and key of a head read to the reader of the edge. @param {number} reader @param {number[]} read */
  tellReasons(reader, read) {
    this.reasons = { reader, read };
    this.stage();
    this.lay();
    this.tell();
  }

  drawSide() {
    this.panel.draw();
    this.groups.draw();
  }

  lay() {
    const { width, height } = this.canvas;
    if (!width || !this.scene) return;
    const wide = width - FRAME.left - FRAME.right,
      high = height - FRAME.top - FRAME.bottom;
    this.layout = layOut(this.scene, this.model, wide, high);
    this.canvas.show(this.scene, this.layout);
    this.canvas.chosen = this.chosen === null ? -1 : this.scene.at[this.chosen];
  }

  tell() {
    const sum = /** @param {Uint8Array} marks */ (marks) => marks.reduce((a, b) => a + b, 0);
    this.root.dataset.nodes = String(sum(this.scene.shown.node));
    this.root.dataset.links = String(this.scene.links.from.length);
    if (this.problem) this.say(this.problem, true);
    this.problem = null;
  }

  /** @param {number} i */
  labelOf(i) {
    return labelOf(this.model, this.resolved, i);
  }

  /** @param {Partial<GraphState>} part @param {string} [view] */
  change(part, view = this.view) {
    Object.assign(this.state, part);
    this.view = view;
    this.canvas.fitted ||= "collapse" in part;
    return this.refresh();
  }

  /** @param {string} view */
  show(view) {
    this.change({}, view);
  }

  /** The pointer pressed an item, an edge, or beside all. @param {Item | null} item @param {number} x @param {number} y */
  pressed(item, x, y) {
    const ends = item ? [item] : this.canvas.endsAt(x, y),
      [from = null, to] = ends.map((each) => each.strongest ?? each.members[0]);
    if (from === null || to === undefined) this.choose(from);
    else this.panel.heads.open(from, to);
  }

  /**
   * Choose a node (null: none). `reveal` brings it into view, `focus` moves the keyboard to the panel.
   * @param {number | null} i @param {boolean} [reveal] @param {boolean} [focus]
   */
  choose(i, reveal = false, focus = false) {
    this.chosen = i;
    if (i === null && this.reasons.reader >= 0) this.tellReasons(-1, []);
    const at = i === null ? -1 : this.scene.at[i];
    this.canvas.light(-1, at);
    if (reveal && at >= 0 && !this.showsList) this.canvas.reveal(this.scene.items[at]);
    if (this.showsList) this.list.show({ chosen: i });
    this.tellChosen();
    this.panel.drawNode();
    if (focus) this.panel.focus();
    this.address();
  }

  tellChosen() {
    if (this.chosen === null) delete this.root.dataset.chosen;
    else this.root.dataset.chosen = this.model.ids[this.chosen];
  }

  /** Light a node while the pointer is on a line that names it. @param {number | null} i */
  point(i) {
    this.canvas.light(i === null ? -1 : this.scene.at[i], this.canvas.chosen);
  }

  /** An act by its key on a node; returns false for any other key. @param {string} key @param {number | null} i */
  act(key, i) {
    const { model, edits } = this;
    if (key === "Escape") this.choose(null);
    else if (i === null) return false;
    else if (key === "p") edits.togglePin(model.ids[i]);
    else if (key === "i" && model.kind[i] === KINDS.FEATURE) this.panel.intervene.add(model.ids[i]);
    else if (key === "n") {
      this.choose(i);
      this.panel.rename(i);
    } else return false;
    return true;
  }

  /** The words at the pointer. @param {Item | null} item @param {number} x @param {number} y */
  tipFor(item, x, y) {
    this.tip.hidden = !item;
    if (!item) return;
    const [title, ...lines] = this.describe(item).map((line) => tokenText(line, 120));
    this.tip.replaceChildren(
      element("strong", { dir: "auto" }, title),
      ...lines.map((line) => element("span", {}, line)),
    );
    const left = x + 14 + this.tip.offsetWidth > this.canvas.width ? x - 14 - this.tip.offsetWidth : x + 14;
    Object.assign(this.tip.style, {
      left: `${Math.max(4, left)}px`,
      top: `${Math.max(4, Math.min(y + 12, this.canvas.height - this.tip.offsetHeight - 4))}px`,
    });
  }

  /** An item in words: its label, what and where it is, its numbers. @param {Item} item */
  describe(item) {
    const { model } = this,
      i = item.node,
      where = item.kind < KINDS.TOKEN ? `layer ${item.layer}, ` : "";
    const what =
      i < 0
        ? `group of ${item.members.length}`
        : item.kind === KINDS.FEATURE
          ? `${model.unit} ${model.index[i]}`
          : KIND_NAMES[item.kind];
    return [
      item.label,
      `${what}, ${where}token ${item.position} ${tokenText(model.tokens[item.position], 16)}`,
      item.kind === KINDS.LOGIT
        ? model.chance(i)
        : `${model.signs ? `effect ${signed(item.size)}` : `influence ${short(item.influence)}`}` +
          (model.signs && item.size < 0 ? `, argues against ${model.answer(this.state.target)}` : "") +
          (item.kind === KINDS.FEATURE && i >= 0 ? `, activation ${short(model.activation[i])}` : ""),
    ];
  }

  // Address and messages

  addressOf(part = {}) {
    const { model, state, edits } = this,
      fixed = /** @param {number} value @param {number} usual */ (value, usual) =>
        value === usual ? "" : String(Number(value.toFixed(4)));
    const query = {
      at: this.chosen === null ? "" : model.ids[this.chosen],
      nodes: fixed(state.nodes, model.opening),
      edges: fixed(state.edges, model.edgeShare),
      target: state.target === null ? "" : String(model.index[state.target]),
      pins: edits.value.pins.join(","),
      view: this.view === "graph" ? "" : this.view,
      collapse: state.collapse ? "1" : "",
      background: state.background ? "1" : "",
      ...part,
    };
    return `/graph/${encodeURIComponent(this.name)}${search(query)}`;
  }

  address() {
    const next = this.addressOf(),
      page = (/** @type {string} */ path) => path.split("/")[1];
    if (page(location.pathname) === page(next) && next !== location.pathname + location.search)
      history.replaceState(null, "", next);
  }

  /** Ask a route of this graph, with a body by POST. @param {string} path @param {unknown} [body] */
  ask(path, body) {
    return json(`${this.source}/${path}`, body);
  }

  /** Ways to propose groups: text, title, act. @returns {[string, string, () => void][]} */
  get proposals() {
    return [];
  }

  /** The name of a picture's file. */
  get file() {
    return this.name.split("/").at(-1) ?? "graph";
  }

  /** @param {string} message @param {boolean} [failed] */
  say(message, failed = false) {
    this.notice.hidden = !message;
    this.notice.classList.toggle("wb-graph-failed", failed);
    this.notice.replaceChildren(message);
  }

  /** @param {Error} error */
  fail(error) {
    this.root.dataset.failed = "true";
    this.root.replaceChildren(
      element(
        "div",
        { class: "wb-notice wb-notice-error", role: "alert" },
        `The graph could not be drawn: ${error.message}`,
      ),
    );
    console.error(error);
  }

  close() {
    this.closed = true;
    this.resizer?.disconnect();
    this.schemes?.disconnect();
    if (this.media) this.media.onchange = null;
    this.canvas?.close();
    this.edits?.close();
  }
}
