// The atlas view: points, overlays, controls, and what is chosen. `new AtlasView(element, source, state, changed)`.
//
// `state` is what an address can hold: colour, size, search, filter, selection, point, at (where we look), overlays.
// `set(part)` takes new values from outside; `changed(part)` tells what the visitor did.

import { Camera } from "./camera.mjs";
import { applied, both, cornersOf, filtered, numbersOf, selected, unpacked } from "./choice.mjs";
import { coloured, levelAt, sized, thresholds } from "./colouring.mjs";
import { Controls } from "./controls.mjs";
import { Density } from "./density.mjs";
import { count, element } from "./dom.mjs";
import { Gestures } from "./gestures.mjs";
import { Grid } from "./grid.mjs";
import { placed } from "./labels.mjs";
import { Legend } from "./legend.mjs";
import { HIDDEN, plain, table } from "./looks.mjs";
import { Minimap } from "./minimap.mjs";
import { Overlay } from "./overlay.mjs";
import { Picture } from "./picture.mjs";
import { rounded, simplify } from "./polygon.mjs";
import { Renderer } from "./renderer.mjs";
import { csvOf, download, savePicture } from "./saving.mjs";
import { EmbeddedSource, Texts, sourceAt } from "./source.mjs";
import { Tip } from "./tip.mjs";

const REACH = 12; // pixels from the pointer within which a point is under it
const REST = 130; // milliseconds without moving after which everything is drawn in full

export const START = {
  colour: "", size: "", search: "", filter: "", selection: "", point: null, neighbours: [], at: "",
  overlays: ["labels", "contours", "minimap"],
};

export class AtlasView {
  constructor(root, source, state = {}, changed = () => {}) {
    Object.assign(this, { root, source, changed, closed: false, wanted: {}, columns: new Map(), regionList: [], thresholds: [] });
    this.state = { ...START, ...clean(state) };
    root.classList.add("atlas");
    root.atlasView = this;
    this.points = null;
    this.marked = this.kept = null;
    this.hover = { id: -1, x: 0, y: 0 };
    this.dirty = new Set();
    this.build();
    this.started = this.start().catch((error) => this.fail(error));
  }

  build() {
    const sheet = (name, given = {}) => element("canvas", { class: `atlas-sheet ${name}`, ...given });
    this.sheets = { points: sheet("atlas-points"), marks: sheet("atlas-marks"), live: sheet("atlas-live", { tabindex: "0", role: "application" }) };
    this.image = element("img", { class: "atlas-sheet atlas-picture", alt: "", hidden: true });
    this.status = element("div", { class: "atlas-status", role: "status", "aria-live": "polite" });
    this.note = element("div", { class: "atlas-note", role: "note", hidden: true });
    this.root.replaceChildren(this.image, ...Object.values(this.sheets), this.note, this.status);
    this.tip = new Tip(this.root);
  }

  async start() {
    const [about, regions] = [await this.source.about(), this.source.regions()];
    this.about = about;
    this.n = about.n;
    this.state.colour ||= about.colour;
    this.palette = about.themes.light.categories.length;
    const first = this.state.colour === "regions" ? `level_${about.whole_map_level}` : this.state.colour;
    const colouring = coloured(first, this);
    const xy = await this.source.xy();
    this.colouring = await colouring;
    if (this.closed) return;
    this.bounds = boundsOf(xy);
    this.camera = new Camera(this.bounds);
    this.points = { xy, codes: this.colouring.codes.slice(), sizes: null };
    this.openRenderer();
    this.furnish();
    this.sheets.live.setAttribute("aria-label", `Map of ${count(this.n)} points. Arrow keys move, plus and minus zoom, Enter opens the point nearest the middle, Escape clears. The table of points holds the same.`);
    this.observe();
    this.camera.text = this.state.at;
    this.frame(false);
    this.root.dataset.ready = Math.round(performance.now());
    await regions.then((list) => this.takeRegions(list));
    await this.refresh(["size", "search", "filter", "selection"].filter((key) => this.state[key]));
    setTimeout(() => this.prepare(), 30);
  }

  openRenderer() {
    try {
      this.renderer = new Renderer(this.sheets.points, this.state.renderer || "auto");
    } catch {
      this.renderer = new Picture(this.source, this.image, () => this.asked());
      this.image.hidden = false;
      this.sheets.points.hidden = true;
      this.note.hidden = false;
      this.note.textContent = this.source instanceof EmbeddedSource
        ? "This browser has no WebGL2: the points are a picture that came with the page."
        : "This browser has no WebGL2: the server draws the points.";
    }
    this.renderer.onRestored = () => this.invalidate("points");
    this.root.dataset.renderer = this.renderer.how;
    this.renderer.load(this.points);
  }

  furnish() {
    const change = (part) => this.change(part);
    this.controls = new Controls(this.root, this.about, {
      change, mode: (mode) => this.setMode(mode), zoom: (how) => this.zoom(how), toggle: (name) => this.toggle(name),
      clear: () => this.clear(), picture: () => this.savePicture(), table: () => this.saveTable(), fullscreen: () => this.fullscreen(),
    });
    this.legend = new Legend(this.root, (filter) => change({ filter }));
    this.overlay = new Overlay(this.sheets.marks, this.sheets.live, this.camera);
    this.minimap = new Minimap(this.root, this.camera, () => { this.moved(); this.rested(); });
    this.gestures = new Gestures(this.sheets.live, this.camera, {
      moved: () => this.moved(), rested: () => this.rested(), hovered: (x, y) => this.hovered(x, y), left: () => this.hovered(-99, -99),
      clicked: (x, y, add) => this.clicked(x, y, add), drawing: (path, kind) => this.drawing(path, kind),
      doubled: (x, y, out) => { this.camera.zoomAt(out ? 0.5 : 2, x, y); this.moved(); this.rested(); },
      drawn: (path, kind) => this.drawn(path, kind), cleared: () => this.clear(), opened: () => this.open(),
    });
    this.texts = new Texts(this.source);
    this.themed();
  }

  /** Follow the size of the element and the scheme of the page. */
  observe() {
    const resized = () => {
      const box = this.root.getBoundingClientRect();
      if (!box.width || !box.height) return;
      const ratio = Math.min(window.devicePixelRatio || 1, this.renderer.how === "pixels" ? 1.5 : 2);
      this.camera.resize(box.width, box.height);
      this.renderer.resize(Math.round(box.width * ratio), Math.round(box.height * ratio));
      this.overlay.resize(ratio);
      if (this.root.dataset.ready) this.frame(false);
    };
    resized();
    this.resizer = new ResizeObserver(resized);
    this.resizer.observe(this.root);
    this.schemes = new MutationObserver(() => this.themed());
    this.schemes.observe(document.documentElement, { attributes: true, attributeFilter: ["data-scheme", "data-mantine-color-scheme"] });
    this.media = window.matchMedia("(prefers-color-scheme: dark)");
    this.media.onchange = () => this.themed();
  }

  get scheme() {
    return document.documentElement.dataset.scheme || (window.matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light");
  }

  themed() {
    this.theme = this.about.themes[this.scheme];
    this.root.dataset.scheme = this.scheme;
    this.told();
    if (this.density) this.minimap.show(this.density, this.theme);
    this.renderer.recode();
    this.invalidate("points", "marks", "live");
  }

  /** What takes time and nobody waits for: the index, contours, the small map. */
  prepare() {
    if (this.closed) return;
    this.grid();
    this.density = new Density(this.points.xy, this.bounds);
    this.contours = this.density.contours();
    this.minimap.show(this.density, this.theme);
    this.root.dataset.prepared = Math.round(performance.now());
    this.invalidate("marks");
  }

  grid() {
    this.index ??= new Grid(this.points.xy, this.bounds);
    return this.index;
  }

  column(name) {
    const column = this.about.columns.find((each) => each.name === name);
    if (!column) return Promise.resolve(null);
    if (!this.columns.has(name)) this.columns.set(name, Promise.resolve(this.source.column(column)));
    return this.columns.get(name);
  }

  regions() {
    return this.source.regions();
  }

  takeRegions(list) {
    this.regionList = list;
    this.labels = placed(list, this.overlay.marks);
    this.thresholds = thresholds(list, this.about.levels);
    if (this.state.colour === "regions" && this.shownColour !== this.colouring.column?.name) this.refresh(["colour"]);
    this.invalidate("marks");
  }

  get level() {
    return levelAt(this.camera.zoom, this.thresholds, this.about.whole_map_level);
  }

  /** The colouring as a column: "regions" is the level that fits the zoom. */
  get shownColour() {
    return this.state.colour === "regions" ? `level_${this.level}` : this.state.colour;
  }

  /** New values from outside. */
  set(part) {
    const next = clean(part);
    const keys = Object.keys(next).filter((key) => key in START && String(next[key]) !== String(this.state[key]));
    for (const key of keys) this.state[key] = next[key];
    if (!this.camera || !keys.length) return;
    if (keys.includes("at") && this.state.at !== this.camera.text) {
      this.camera.text = this.state.at;
      this.moved();
      this.rested();
    }
    this.refresh(keys);
  }

  /** A change made here: done, and told. */
  change(part) {
    this.set(part);
    this.changed(part);
  }

  async refresh(keys) {
    const ticket = (this.ticket = (this.ticket ?? 0) + 1);
    const { state } = this;
    const has = (...names) => names.some((name) => keys.includes(name));
    try {
      if (has("colour")) this.colouring = await coloured(this.shownColour, this);
      if (has("size")) this.points.sizes = await sized(state.size, this);
      if (has("filter")) this.kept = await filtered(state.filter, this);
      if (has("search")) this.matches = state.search.trim() ? unpacked((await this.source.search(state.search)).bits, this.n) : null;
      if (has("selection")) this.chosenPoints = await selected(state.selection, this);
    } catch (error) {
      this.fail(error);
    }
    if (this.closed || ticket !== this.ticket && !has("colour", "size", "filter", "search", "selection")) return;
    if (has("colour", "size", "filter", "search", "selection")) this.mark();
    this.told();
    this.invalidate("marks", "live");
  }

  mark() {
    this.marked = both(this.matches, this.chosenPoints);
    this.bright = applied(this.colouring.codes, this.points.codes, this.marked, this.kept);
    this.renderer.recode();
    this.invalidate("points");
    if (this.marked || this.kept) this.status.textContent = `${count(this.bright)} of ${count(this.n)} points`;
  }

  told() {
    const { state } = this;
    this.controls.show(state, this.gestures?.mode ?? "pan");
    const what = state.selection ? "selected" : state.search.trim() ? "found" : "kept";
    this.controls.tell(this.marked || this.kept ? this.bright : null, this.n, what);
    this.legend.show(this.colouring.column?.kind === "region" ? null : this.colouring.column && this.colouring, this.theme, state.filter);
    this.root.dataset.colour = this.colouring.column?.name ?? "none";
  }

  // Drawing

  moved() {
    this.moving = true;
    this.camera.fitted &&= Math.abs(this.camera.zoom - this.camera.whole) < 1e-9;
    const column = this.colouring.column?.name;
    if (this.state.colour === "regions" && column && column !== this.shownColour) this.refresh(["colour"]);
    this.invalidate("points", "marks");
  }

  rested() {
    clearTimeout(this.restTimer);
    this.restTimer = setTimeout(() => {
      this.moving = false;
      if (this.root.dataset.detail !== "full") this.invalidate("points");
      this.invalidate("marks");
      if (this.camera.text !== this.state.at) {
        this.state.at = this.camera.text;
        this.changed({ at: this.state.at });
      }
    }, REST);
  }

  invalidate(...what) {
    what.forEach((each) => this.dirty.add(each));
    this.pending ??= requestAnimationFrame(() => {
      this.pending = null;
      if (!this.closed) this.frame(this.moving);
    });
  }

  frame(moving) {
    const all = this.dirty.size === 0;
    const due = (name) => all || this.dirty.has(name);
    if (due("points")) this.drawPoints(moving);
    if (due("marks")) this.drawMarks();
    if (due("live")) this.drawLive();
    this.dirty.clear();
  }

  drawPoints(moving) {
    const nearer = this.camera.zoom / this.camera.whole;
    const look = plain(this.n, nearer);
    const share = this.renderer.draw({
      camera: this.camera, colours: table(this.theme, look.opacity), radius: look.radius, grid: this.index ?? null, selecting: Boolean(this.marked),
    }, moving);
    this.root.dataset.detail = share === 1 ? "full" : "thinned";
  }

  drawMarks() {
    const { state, theme } = this;
    const on = (name) => state.overlays.includes(name);
    const at = (id) => [this.points.xy[2 * id], this.points.xy[2 * id + 1]];
    const valid = (id) => Number.isInteger(id) && id >= 0 && id < this.n;
    this.overlay.drawMarks({
      theme, labels: on("labels") ? this.labels : null, contours: on("contours") ? this.contours : null,
      outline: cornersOf(state.selection), chosen: valid(state.point) ? at(state.point) : null,
      near: (state.neighbours ?? []).filter(valid).map(at), cells: on("grid") ? this.cellList : null,
    });
    this.minimap.draw(on("minimap") && Boolean(this.density));
  }

  drawLive() {
    const { id } = this.hover;
    this.overlay.drawLive({
      theme: this.theme, hovered: id < 0 ? null : [this.points.xy[2 * id], this.points.xy[2 * id + 1]],
      region: this.hoveredRegion?.contour, path: this.path, closed: this.pathKind !== "lasso",
    });
  }

  // What the visitor does

  hovered(x, y) {
    this.hover.x = x;
    this.hover.y = y;
    const id = x < 0 ? -1 : this.pointAt(x, y);
    const label = x < 0 ? null : this.overlay.labelAt(x, y);
    this.sheets.live.style.cursor = label || id >= 0 ? "pointer" : "";
    if (id === this.hover.id && label?.region === this.hoveredLabel) return this.tip.follow(x, y, this.camera);
    this.hover.id = id;
    this.hoveredLabel = label?.region;
    this.hoveredRegion = label?.region ?? this.regionOf(id);
    this.invalidate("live");
    if (id < 0) return this.tip.hide();
    const known = this.texts.get(id);
    const show = (text) => id === this.hover.id && this.tip.show(text, this.hover.x, this.hover.y, this.camera);
    if (known) show(known);
    else this.texts.ask(id, show).catch((error) => this.fail(error));
  }

  regionOf(id) {
    const { column } = this.colouring;
    if (id < 0 || column?.kind !== "region") return null;
    const values = this.valuesNow?.name === column.name ? this.valuesNow.values : null;
    if (!values) this.column(column.name).then((got) => { this.valuesNow = { name: column.name, values: got }; });
    return values ? this.regionList[values[id] - 1] ?? null : null;
  }

  pointAt(x, y, reach = REACH) {
    const { codes } = this.points;
    return this.grid().nearest(this.camera.worldX(x), this.camera.worldY(y), reach / this.camera.zoom, (id) => codes[id] !== HIDDEN);
  }

  clicked(x, y, add) {
    const label = this.overlay.labelAt(x, y);
    if (label) return this.change({ selection: `region:${label.region.region}` });
    const id = this.pointAt(x, y);
    if (id < 0) return;
    if (!add) return this.choose(id);
    const now = numbersOf(this.state.selection, "points") ?? [];
    const next = now.includes(id) ? now.filter((each) => each !== id) : [...now, id];
    this.change({ selection: next.length ? `points:${next.join(",")}` : "" });
  }

  choose(id) {
    this.change({ point: id, neighbours: [] });
    this.texts.ask(id, (text) => { this.status.textContent = `Chosen: ${text.label || `point ${id}`}`; }).catch(() => {});
  }

  /** Enter: choose the point nearest to the middle; when it is chosen already, open it. */
  open() {
    const { width, height } = this.camera;
    const id = this.pointAt(width / 2, height / 2, Math.max(width, height));
    if (id < 0) return;
    if (id !== this.state.point) return this.choose(id);
    this.changed({ opened: id });
  }

  drawing(path, kind) {
    this.path = path;
    this.pathKind = kind;
    this.tip.hide();
    this.invalidate("live");
  }

  drawn(path, kind) {
    this.drawing(null);
    if (path.length < 6) return;
    const world = (corners) => corners.map((v, i) => (i % 2 ? this.camera.worldY(v) : this.camera.worldX(v)));
    const [x0, y0, , , x1, y1] = world(path);
    if (kind === "box") {
      this.camera.show(Math.min(x0, x1), Math.min(y0, y1), Math.max(x0, x1), Math.max(y0, y1));
      this.setMode("pan");
      this.moved();
      this.rested();
    } else if (kind === "rectangle") this.change({ selection: `box:${rounded([Math.min(x0, x1), Math.min(y0, y1), Math.max(x0, x1), Math.max(y0, y1)])}` });
    else this.change({ selection: `lasso:${rounded(world(simplify(path, 1.2)))}` });
  }

  clear() {
    if (this.path) return this.drawing(null);
    this.change({ selection: "", search: "", filter: "", point: null, neighbours: [] });
    this.status.textContent = "Nothing is selected";
  }

  setMode(mode) {
    this.gestures.mode = mode;
    this.root.dataset.mode = mode;
    this.told();
  }

  zoom(how) {
    const { camera } = this;
    if (how === "all") camera.fit();
    else camera.zoomAt(how === "closer" ? 1.6 : 1 / 1.6, camera.width / 2, camera.height / 2);
    this.moved();
    this.rested();
  }

  async toggle(name) {
    const { overlays } = this.state;
    if (name === "grid") this.cellList ??= await this.source.cells();
    this.change({ overlays: overlays.includes(name) ? overlays.filter((each) => each !== name) : [...overlays, name] });
  }

  fullscreen() {
    if (document.fullscreenElement) document.exitFullscreen();
    else this.root.requestFullscreen?.();
  }

  savePicture() {
    this.drawPoints(false);
    const points = this.renderer.how === "picture" ? this.image : this.sheets.points;
    return savePicture([points, this.sheets.marks], this.theme.surface, this.about.name);
  }

  async saveTable() {
    const address = this.source.csv(this.asked());
    if (address) return download(address, `${this.about.name}.csv`);
    const ids = Array.from({ length: this.n }, (_, i) => i).filter((i) => (!this.marked || this.marked[i]) && (!this.kept || this.kept[i]));
    const text = csvOf(await this.source.texts(ids), this.points.xy);
    download(URL.createObjectURL(new Blob([text], { type: "text/csv" })), `${this.about.name}.csv`);
  }

  /** What the server needs to know to draw or list what is shown. */
  asked() {
    const { size, search, filter, selection } = this.state;
    return { colour: this.shownColour, size, search, filter, selection, scheme: this.scheme };
  }

  fail(error) {
    this.note.hidden = false;
    this.note.textContent = `The map could not be shown: ${error.message}`;
    this.root.dataset.failed = "true";
    console.error(error);
  }

  close() {
    this.closed = true;
    this.resizer?.disconnect();
    this.schemes?.disconnect();
    if (this.media) this.media.onchange = null;
    this.renderer?.close();
    this.root.replaceChildren();
    delete this.root.dataset.ready;
  }
}

/** Only what was given. */
const clean = (part) => Object.fromEntries(Object.entries(part ?? {}).filter(([, value]) => value !== undefined));

function boundsOf(xy) {
  let x0 = Infinity, y0 = Infinity, x1 = -Infinity, y1 = -Infinity;
  for (let i = 0; i < xy.length; i += 2) {
    const x = xy[i], y = xy[i + 1];
    if (x < x0) x0 = x;
    if (x > x1) x1 = x;
    if (y < y0) y0 = y;
    if (y > y1) y1 = y;
  }
  return x0 <= x1 ? [x0, y0, x1, y1] : [0, 0, 1, 1];
}

/** Start fetching before the page asks. */
export function prefetch(base) {
  const source = sourceAt(base);
  source.about().then((about) => about.levels && source.regions()).catch(() => {});
  source.xy().catch(() => {});
}

export { EmbeddedSource, sourceAt };
