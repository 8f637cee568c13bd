// Interaction with the map and the live canvas that shows it: hover, click, lasso, modes, saving.

import { cellAt } from "./cells.mjs";
import { numbersOf } from "./choice.mjs";
import { HIDDEN } from "./looks.mjs";
import { rounded, simplify } from "./polygon.mjs";
import { download, savePicture } from "./saving.mjs";
import { Texts } from "./source.mjs";
import { Tip } from "./tip.mjs";

const REACH = 12; // largest distance in pixels at which a point counts as under the pointer
const STEP = 1.6; // of the zoom buttons

export class Visitor {
  /** @param {AtlasView} view */
  constructor(view) {
    this.view = view;
    this.texts = new Texts(view.source);
    this.tip = new Tip(view.root);
    /** @type {Point} */
    this.at = [0, 0];
    this.point = -1; // under the pointer
    /** @type {MapLabel | null} */
    this.label = null;
    /** @type {Region | null} */
    this.region = null;
    /** @type {number[] | null} */
    this.path = null;
    this.kind = "";
    this.mode = "pan";
  }

  /** Callbacks of the gestures. @returns {GestureReports} */
  get gestures() {
    return {
      moved: () => this.view.moved(),
      rested: () => this.view.rested(),
      hovered: (x, y) => this.hovered(x, y),
      left: () => this.hovered(-99, -99),
      clicked: (x, y, add) => this.clicked(x, y, add),
      doubled: (x, y, out) => this.zoomAt(out ? 0.5 : 2, x, y),
      drawing: (path, kind) => this.drawing(path, kind),
      drawn: (path, kind) => this.drawn(path, kind),
      cleared: () => this.clear(),
      opened: () => this.open(),
    };
  }

  /** Callbacks of the controls. @returns {ControlReports} */
  get controls() {
    return {
      change: (part) => this.view.change(part),
      mode: (mode) => this.setMode(mode),
      zoom: (how) => this.zoom(how),
      toggle: (name) => this.toggle(name),
      clear: () => this.clear(),
      picture: () => this.savePicture(),
      table: this.view.source.csv ? () => this.saveTable() : null,
      fullscreen: () => this.fullscreen(),
    };
  }

  /** @param {number} x @param {number} y */
  hovered(x, y) {
    const { view } = this;
    this.at = [x, y];
    if (view.cells) return this.hoveredCell(view.cells, x, y);
    const outside = x < 0;
    const point = outside ? -1 : this.pointAt(x, y);
    const label = outside ? null : view.overlay.labelAt(x, y);
    view.sheets.live.style.cursor = label || point >= 0 ? "pointer" : "";
    if (point === this.point && label === this.label) return this.tip.follow(x, y, view.camera);
    this.point = point;
    this.label = label;
    this.region = label?.region ?? this.regionOf(point);
    view.invalidate("live");
    if (point < 0) return this.tip.hide();
    /** @param {PointText} text */
    const show = (text) => point === this.point && this.tip.show(text, ...this.at, view.camera);
    const known = this.texts.get(point);
    if (known) show(known);
    else this.texts.ask(point, show).catch((error) => view.fail(error));
  }

  /**
   * Over a grid of mean activations the tooltip shows a cell's text instead of a point's.
   * @param {CellGrid[]} cells @param {number} x @param {number} y
   */
  hoveredCell(cells, x, y) {
    const { camera } = this.view;
    const cell = cellAt(cells, camera.zoom, camera.worldX(x), camera.worldY(y));
    if (!cell) return this.tip.hide();
    const [label, ...rest] = cell.texts;
    /** @type {PointText["values"]} */
    const values = [
      ["points", cell.n],
      ["coherence", cell.coherence],
    ];
    this.tip.show({ point: -1, label, context: rest.join("\u2002"), values }, x, y, camera);
  }

  /** The region that gives a point its colour. @param {number} point */
  regionOf(point) {
    const { column, values } = this.view.colouring;
    return point >= 0 && column?.kind === "region" ? (this.view.regionList[values[point] - 1] ?? null) : null;
  }

  /** @param {number} x @param {number} y @param {number} [reach] */
  pointAt(x, y, reach = REACH) {
    const { camera, points } = this.view;
    /** @param {number} id */
    const drawn = (id) => points.codes[id] !== HIDDEN;
    return this.view.grid().nearest(camera.worldX(x), camera.worldY(y), reach / camera.zoom, drawn);
  }

  drawLive() {
    const { view, point } = this;
    view.overlay.drawLive({
      theme: view.theme,
      hovered: point < 0 ? null : view.place(point),
      region: this.region?.contour,
      path: this.path,
      closed: this.kind !== "lasso",
    });
  }

  /** @param {number} x @param {number} y @param {boolean} add */
  clicked(x, y, add) {
    const label = this.view.overlay.labelAt(x, y);
    if (label) return this.view.change({ selection: `region:${label.region.region}` });
    const point = this.pointAt(x, y);
    if (point < 0) return;
    if (!add) return point === this.view.state.point ? this.view.changed({ opened: point }) : this.choose(point);
    const now = numbersOf(this.view.state.selection, "points") ?? [];
    const next = now.includes(point) ? now.filter((each) => each !== point) : [...now, point];
    this.view.change({ selection: next.length ? `points:${next.join(",")}` : "" });
  }

  /** @param {number} point */
  choose(point) {
    this.view.change({ point, neighbours: [] });
    this.texts.ask(point, (text) => this.view.say(`Chosen: ${text.label || `point ${point}`}`)).catch(() => {});
  }

  /** Enter: choose the point nearest to the middle; when it is chosen already, open it. */
  open() {
    const { width, height } = this.view.camera;
    const point = this.pointAt(width / 2, height / 2, Math.max(width, height));
    if (point < 0) return;
    if (point !== this.view.state.point) return this.choose(point);
    this.view.changed({ opened: point });
  }

  /** @param {number[] | null} path @param {string} [kind] */
  drawing(path, kind = "") {
    this.path = path;
    this.kind = kind;
    this.tip.hide();
    this.view.invalidate("live");
  }

  /** A lasso, rectangle or box is done: `path` in pixels of the screen. @param {number[]} path @param {string} kind */
  drawn(path, kind) {
    this.drawing(null);
    if (path.length < 6) return;
    const { camera } = this.view;
    /** @param {number[]} corners */
    const world = (corners) => corners.map((v, i) => (i % 2 ? camera.worldY(v) : camera.worldX(v)));
    if (kind === "lasso") return this.view.change({ selection: `lasso:${rounded(world(simplify(path, 1.2)))}` });
    const [ax, ay, , , bx, by] = world(path);
    /** @type {Box} */
    const box = [Math.min(ax, bx), Math.min(ay, by), Math.max(ax, bx), Math.max(ay, by)];
    if (kind === "rectangle") return this.view.change({ selection: `box:${rounded(box)}` });
    camera.show(...box);
    this.setMode("pan");
    this.view.moved();
    this.view.rested();
  }

  clear() {
    if (this.path) return this.drawing(null);
    this.view.change({ selection: "", search: "", filter: "", point: null, neighbours: [] });
    this.view.say("Nothing is selected");
  }

  /** @param {string} mode */
  setMode(mode) {
    this.mode = this.view.gestures.mode = mode;
    this.view.root.dataset.mode = mode;
    this.view.told();
  }

  /** @param {string} how */
  zoom(how) {
    const { camera } = this.view;
    if (how !== "all") return this.zoomAt(how === "closer" ? STEP : 1 / STEP, camera.width / 2, camera.height / 2);
    camera.fit();
    this.view.moved();
    this.view.rested();
  }

  /** @param {number} factor @param {number} x @param {number} y */
  zoomAt(factor, x, y) {
    this.view.camera.zoomAt(factor, x, y);
    this.view.moved();
    this.view.rested();
  }

  /** @param {string} name */
  toggle(name) {
    const { overlays } = this.view.state;
    this.view.change({
      overlays: overlays.includes(name) ? overlays.filter((each) => each !== name) : [...overlays, name],
    });
  }

  fullscreen() {
    if (document.fullscreenElement) document.exitFullscreen();
    else this.view.root.requestFullscreen?.();
  }

  savePicture() {
    const { view } = this;
    view.drawPoints(false);
    return savePicture(view.root, [view.sheets.points, view.sheets.marks], view.theme.surface, view.about.name);
  }

  /** The bright points as CSV, from the server. */
  saveTable() {
    const { about, source } = this.view;
    download(source.csv?.(this.view.asked()) ?? "", `${about.name}.csv`);
  }
}
