// The atlas view: points, overlays, controls, and the selection. `new AtlasView(element, source, state)`.
//
// `state` is what an address can hold: colour, search, filter, selection, point, at (the camera), overlays.
// `set(part)` takes new values from outside; `changed(part)`, a property to set, is called with the visitor's changes.

import { count, element } from "../dom.mjs";
import { Camera } from "./camera.mjs";
import { applied, both, cornersOf, either, filtered, meeting, selected, unpacked } from "./choice.mjs";
import { coloured, levelAt, thresholds } from "./colouring.mjs";
import { Controls } from "./controls.mjs";
import { Frames } from "./frames.mjs";
import { Gestures } from "./gestures.mjs";
import { boundsOf, Grid } from "./grid.mjs";
import { placed } from "./labels.mjs";
import { Legend } from "./legend.mjs";
import { plain, table } from "./looks.mjs";
import { PointNames } from "./names.mjs";
import { Overlay } from "./overlay.mjs";
import { Renderer } from "./renderer.mjs";
import { EmbeddedSource, sourceAt } from "./source.mjs";
import { Visitor } from "./visitor.mjs";

const GLOWING = 400; // points that a search found, at most, for them to glow
const AROUND = 0.03; // of the map, at least, is shown around what a search found
const REST = 130; // milliseconds without moving after which everything is drawn in full

/** @type {AtlasState} */
const START = {
  colour: "",
  search: "",
  filter: "",
  selection: "",
  point: null,
  neighbours: [],
  at: "",
  overlays: ["labels"],
};

// Values to fetch or compute when a part of the state changes, and the fields that hold them. All run in parallel; a
// response that a later request has superseded is dropped.
/** @type {Record<string, [field: string, work: (view: AtlasView) => unknown]>} */
const LOADED = {
  colour: ["colouring", (view) => coloured(view.shownColour, view)],
  filter: ["kept", (view) => filtered(view.state.filter, view)],
  selection: ["chosenPoints", (view) => selected(view.state.selection, view)],
  search: [
    "sought",
    async (view) => {
      if (!view.state.search.trim()) return null;
      const { bits, near } = await view.source.search(view.state.search);
      return { found: unpacked(bits, view.n), near: near.length ? unpacked(near, view.n) : null };
    },
  ],
  overlays: ["cellList", (view) => (view.state.overlays.includes("grid") ? view.source.cells() : null)],
};

export class AtlasView {
  closed = false;
  drawn = false;
  moving = false;
  bright = 0;
  /** @type {(part: Properties) => void} */
  changed = () => {};
  /** @type {Map<string, Promise<Numbers>>} */
  columns = new Map();
  /** @type {Record<string, number>} */
  tickets = {};
  /** @type {Set<string>} */
  dirty = new Set();
  /** @type {number | null} */
  pending = null;
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  restTimer;

  // from the source
  /** @type {About} */
  about;
  /** @type {MapPoints} */
  points;
  /** @type {Region[]} */
  regionList = [];
  /** @type {number[]} */
  thresholds = [];
  /** @type {MapLabel[] | null} */
  labels = null;
  /** @type {AtlasTheme} */
  theme;
  n = 0;
  palette = 0;

  // from the state, see LOADED
  /** @type {Colouring} */
  colouring;
  /** @type {Uint8Array | null} */
  kept = null;
  /** @type {Uint8Array | null} */
  chosenPoints = null;
  /** @type {{ found: Uint8Array, near: Uint8Array | null } | null} */
  sought = null;
  /** @type {CellGrid[] | null} */
  cellList = null;
  /** @type {Uint8Array | null} */
  marked = null; // found and selected
  /** @type {Uint8Array | null} */
  vivid = null; // these and the neighbours of what was found: they keep their colour
  /** @type {Set<number>} */
  hits = new Set(); // found by a search, where they are few: they glow
  /** @type {string | null} */
  asking = null;

  // from the points
  /** @type {Box} */
  bounds;
  /** @type {Camera} */
  camera;
  /** @type {Grid | null} */
  index = null;

  // parts of the view, once there is something to show
  /** @type {Renderer} */
  renderer;
  /** @type {Visitor} */
  visitor;
  /** @type {Controls} */
  controls;
  /** @type {Record<"points" | "marks" | "live", HTMLCanvasElement>} */
  sheets;
  /** @type {HTMLElement} */
  status;
  /** @type {HTMLElement} */
  note;
  /** @type {Gestures} */
  gestures;
  /** @type {Frames | undefined} */
  frames;
  /** @type {Legend} */
  legend;
  /** @type {PointNames} */
  names;
  /** @type {Overlay} */
  overlay;

  /**
   * @param {HTMLElement & { atlasView?: AtlasView }} root @param {Source} source @param {Partial<AtlasState>} [state]
   */
  constructor(root, source, state = {}) {
    this.root = root;
    this.source = source;
    this.state = { ...START, ...clean(state) };
    root.classList.add("atlas");
    root.atlasView = this;
    this.build();
    this.started = this.start().catch((error) => this.fail(error));
  }

  build() {
    /** @param {string} name @param {Attributes} [given] */
    const sheet = (name, given = {}) => element("canvas", { class: `atlas-sheet atlas-${name}`, ...given });
    this.sheets = {
      points: sheet("points"),
      marks: sheet("marks"),
      live: sheet("live", { tabindex: "0", role: "application" }),
    };
    this.status = element("div", { class: "atlas-status", role: "status", "aria-live": "polite" });
    this.note = element("div", { class: "atlas-note", role: "note", hidden: true });
    this.root.replaceChildren(...Object.values(this.sheets), this.note, this.status);
  }

  /** Draw as soon as positions and colours are loaded; whatever depends on them follows. */
  async start() {
    const [about, regions] = [await this.source.about(), this.source.regions()];
    this.about = about;
    this.n = about.n;
    this.state.colour ||= about.colour;
    this.palette = about.themes.light.categories.length;
    const colouring = coloured(
      this.state.colour === "regions" ? `level_${about.whole_map_level}` : this.state.colour,
      this,
    );
    const xy = await this.source.xy();
    this.colouring = await colouring;
    if (this.closed) return;
    this.bounds = boundsOf(xy);
    this.camera = new Camera(this.bounds);
    const several = (about.frames?.length ?? 0) > 1; // then positions change, and the fetched array must stay unchanged
    this.points = { xy: several ? xy.slice() : xy, codes: this.colouring.codes.slice() };
    this.renderer = new Renderer(this.sheets.points);
    this.furnish();
    this.observe();
    this.camera.text = this.state.at;
    this.frame(false);
    this.drawn = true;
    const shown = () => {
      this.root.dataset.ready = String(Math.round(performance.now()));
    };
    requestAnimationFrame(() => requestAnimationFrame(shown)); // by then it is on the screen
    this.takeRegions(await regions);
    const { filter, selection, search, overlays } = this.state;
    const given = Object.entries({ filter, selection, search, overlays }).filter(([, value]) => value.length);
    await this.refresh(given.map(([key]) => key));
    if (!this.state.at) this.showFound();
    setTimeout(() => this.prepare(), 30);
  }

  furnish() {
    this.visitor = new Visitor(this);
    this.controls = new Controls(this.root, this.about, this.visitor.controls);
    const { frames = [] } = this.about;
    if (frames.length > 1) this.frames = new Frames(this.root, frames, this);
    this.legend = new Legend(this.root, (filter) => this.change({ filter }));
    this.names = new PointNames(this);
    this.overlay = new Overlay(this.sheets.marks, this.sheets.live, this.camera);
    this.gestures = new Gestures(this.sheets.live, this.camera, this.visitor.gestures);
    const keys = "Arrow keys move, plus and minus zoom, Enter chooses the point nearest the middle, Escape clears.";
    this.sheets.live.setAttribute(
      "aria-label",
      `Map of ${count(this.n)} points. ${keys} The table of points has the same points.`,
    );
    this.themed();
  }

  /** Follow the size of the element and the page's colour scheme. */
  observe() {
    const resized = () => {
      const { clientWidth: width, clientHeight: height } = this.root;
      if (!width || !height) return;
      const ratio = Math.min(window.devicePixelRatio || 1, 1.5);
      this.camera.resize(width, height);
      this.renderer.resize(Math.round(width * ratio), Math.round(height * ratio));
      this.overlay.resize(ratio);
      if (this.drawn) this.frame(false);
    };
    resized();
    this.resizer = new ResizeObserver(resized);
    this.resizer.observe(this.root);
    this.schemes = new MutationObserver(() => this.themed());
    this.schemes.observe(document.documentElement, { attributes: true, attributeFilter: ["data-scheme"] });
    this.media = window.matchMedia("(prefers-color-scheme: dark)");
    this.media.onchange = () => this.themed();
  }

  /** @returns {"light" | "dark"} */
  get scheme() {
    return (document.documentElement.dataset.scheme ??
      (window.matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light")) === "dark"
      ? "dark"
      : "light";
  }

  themed() {
    this.theme = this.about.themes[this.scheme];
    this.root.dataset.scheme = this.scheme;
    this.told();
    this.invalidate("points", "marks", "live");
  }

  /** Slow work that nothing waits for: the spatial index, and the order in which points are named. */
  prepare() {
    if (this.closed) return;
    this.grid();
    this.names.rank().catch((error) => this.fail(error));
    this.root.dataset.prepared = String(Math.round(performance.now()));
    this.invalidate("marks");
  }

  /** Points have moved; `done` when they have reached their new positions. @param {boolean} done */
  relaid(done) {
    this.index = null;
    if (done) {
      this.bounds = boundsOf(this.points.xy);
      this.prepare();
    }
    this.root.dataset.frame = done && this.frames ? String(this.frames.at) : "moving";
    this.invalidate("points", "marks", "live");
  }

  grid() {
    this.index ??= new Grid(this.points.xy, this.bounds);
    return this.index;
  }

  /** @param {string} name */
  column(name) {
    const column = this.about.columns.find((each) => each.name === name);
    if (!column) return Promise.resolve(null);
    if (!this.columns.has(name)) this.columns.set(name, Promise.resolve(this.source.column(column)));
    return this.columns.get(name);
  }

  regions() {
    return this.source.regions();
  }

  /** @param {Region[]} list */
  takeRegions(list) {
    this.regionList = list;
    this.labels = placed(list, this.overlay.marks);
    this.thresholds = thresholds(list, this.about.levels);
    this.recoloured();
    this.invalidate("marks");
  }

  /** The colouring as a column: "regions" is the level that fits the zoom. */
  get shownColour() {
    if (this.state.colour !== "regions") return this.state.colour;
    return `level_${levelAt(this.camera.zoom, this.thresholds, this.about.whole_map_level)}`;
  }

  recoloured() {
    const { colour } = this.state;
    if (colour === "regions" && this.asking !== this.shownColour && this.colouring.column?.name !== this.shownColour) {
      this.asking = this.shownColour;
      this.refresh(["colour"]).then(() => {
        this.asking = null;
      });
    }
  }

  /** New values from outside. @param {Partial<AtlasState>} part */
  set(part) {
    const next = clean(part);
    const now = /** @type {Properties} */ ({ ...this.state });
    const keys = Object.keys(next).filter((key) => key in START && String(next[key]) !== String(now[key]));
    Object.assign(this.state, Object.fromEntries(keys.map((key) => [key, next[key]])));
    if (!this.visitor || !keys.length) return;
    if (keys.includes("at") && this.state.at !== this.camera.text) {
      this.camera.text = this.state.at;
      this.moved();
      this.rested();
    }
    this.refresh(keys).then(() => {
      if (keys.includes("search") && !keys.includes("at")) this.showFound();
    });
  }

  /** Move to the points that a search found. */
  showFound() {
    if (!this.sought || !this.state.search.trim()) return;
    let [x0, y0, x1, y1] = [Infinity, Infinity, -Infinity, -Infinity];
    for (let id = 0; id < this.n; id++) {
      if (!this.sought.found[id]) continue;
      const [x, y] = this.place(id);
      [x0, y0, x1, y1] = [Math.min(x0, x), Math.min(y0, y), Math.max(x1, x), Math.max(y1, y)];
    }
    if (x0 > x1) return;
    const [left, low, right, high] = this.bounds,
      whole = Math.max(right - left, high - low),
      wide = Math.max(x1 - x0, y1 - y0),
      margin = 0.05 * wide + Math.max(0.01 * whole, (AROUND * whole - wide) / 2);
    this.camera.show(x0 - margin, y0 - margin, x1 + margin, y1 + margin);
    this.camera.fitted = false;
    this.moved();
    this.rested();
  }

  /** Apply a change made by the visitor, and report it. @param {Partial<AtlasState>} part */
  change(part) {
    this.set(part);
    this.changed(part);
  }

  /** @param {string[]} keys */
  async refresh(keys) {
    const loaded = await Promise.all(keys.map((key) => this.load(key)));
    if (this.closed) return;
    if (loaded.some(Boolean)) this.mark();
    this.told();
    this.invalidate("marks", "live");
  }

  /** @param {string} key */
  async load(key) {
    if (!LOADED[key]) return false;
    const [field, work] = LOADED[key];
    const ticket = (this.tickets[key] ?? 0) + 1;
    this.tickets[key] = ticket;
    try {
      const value = await work(this);
      if (ticket === this.tickets[key]) Object.assign(this, { [field]: value });
    } catch (error) {
      this.fail(/** @type {Error} */ (error));
    }
    return key !== "overlays";
  }

  mark() {
    const { sought, kept } = this;
    this.marked = both(sought?.found, this.chosenPoints) ?? null;
    this.vivid = this.marked && either(this.marked, sought?.near ?? null);
    applied(this.colouring.codes, this.points.codes, this.vivid, kept);
    const bright = this.marked || kept ? meeting(this.n, this.marked, kept) : null;
    this.bright = bright?.length ?? this.n;
    this.hits = new Set(sought && bright && bright.length <= GLOWING ? bright : []);
    this.invalidate("points");
    if (bright) this.say(`${count(this.bright)} of ${count(this.n)} points`);
  }

  /** Set controls and legend to what is shown. */
  told() {
    const { state, colouring } = this;
    this.controls.show(state, this.visitor.mode);
    const what = state.selection ? "selected" : state.search.trim() ? "found" : "kept";
    this.controls.tell(this.marked || this.kept ? this.bright : null, this.n, what);
    this.legend.show(
      colouring.column && colouring.column.kind !== "region" ? colouring : null,
      this.theme,
      state.filter,
    );
    this.root.dataset.colour = colouring.column?.name ?? "none";
  }

  // Drawing

  moved() {
    this.moving = true;
    this.recoloured();
    this.invalidate("camera", "marks");
  }

  rested() {
    clearTimeout(this.restTimer);
    this.restTimer = setTimeout(() => {
      this.moving = false;
      if (this.root.dataset.detail !== "full") this.invalidate("points");
      this.invalidate("marks");
      if (this.camera.text === this.state.at) return;
      this.state.at = this.camera.text;
      this.changed({ at: this.state.at });
    }, REST);
  }

  /** @param {...string} what */
  invalidate(...what) {
    what.forEach((each) => this.dirty.add(each));
    this.pending ??= requestAnimationFrame(() => {
      this.pending = null;
      if (!this.closed) this.frame(this.moving);
    });
  }

  /** @param {boolean} moving */
  frame(moving) {
    const all = this.dirty.size === 0;
    /** @param {string} name */
    const due = (name) => all || this.dirty.has(name);
    if (due("points")) this.drawPoints(moving);
    else if (due("camera")) this.drawPoints(moving, true);
    if (due("marks")) this.drawMarks();
    if (due("live")) this.visitor.drawLive();
    this.dirty.clear();
  }

  /** @param {boolean} moving @param {boolean} [same] points and colours are those of the last picture */
  drawPoints(moving, same = false) {
    const { camera } = this;
    const look = plain(this.n, camera.zoom / camera.whole);
    const scene = {
      camera,
      colours: table(this.theme, look.opacity),
      radius: look.radius,
      grid: this.index ?? null,
      selecting: Boolean(this.marked),
    };
    const shifted = same && moving && this.renderer.shift(this.points, scene);
    const share = shifted ? 0 : this.renderer.draw(this.points, scene, moving);
    this.root.dataset.detail = share === 1 ? "full" : "thinned";
  }

  drawMarks() {
    const { state, theme } = this;
    /** @param {string} name */
    const on = (name) => state.overlays.includes(name);
    /** @param {number | null} id @returns {id is number} */
    const valid = (id) => id !== null && Number.isInteger(id) && id >= 0 && id < this.n;
    this.overlay.drawMarks({
      theme,
      labels: on("labels") && !this.cells && (this.frames?.atLast ?? true) ? this.labels : null,
      outline: cornersOf(state.selection),
      hits: Array.from(this.hits, (id) => this.place(id)),
      radius: plain(this.n, this.camera.zoom / this.camera.whole).radius,
      chosen: valid(state.point) ? this.place(state.point) : null,
      near: (state.neighbours ?? []).filter(valid).map((id) => this.place(id)),
      cells: this.cells,
    });
    if (on("labels") && !this.cells) {
      const seen = this.names.seen();
      this.names.draw(this.overlay.marks, seen, this.overlay.shown, theme);
      if (!this.moving) this.names.fetch(seen).catch((error) => this.fail(error));
    }
  }

  /** The grids of mean activations while they are shown, else null. */
  get cells() {
    return this.state.overlays.includes("grid") ? (this.cellList ?? null) : null;
  }

  /** Position of a point in the world. @param {number} id @returns {Point} */
  place(id) {
    return [this.points.xy[2 * id], this.points.xy[2 * id + 1]];
  }

  /** Parameters with which the server lists what is shown. */
  asked() {
    const { search, filter, selection } = this.state;
    return { search, filter, selection };
  }

  /** For those who hear the page. @param {string} text */
  say(text) {
    this.status.textContent = text;
  }

  /** For all. @param {string} text */
  tell(text) {
    this.note.hidden = false;
    this.note.textContent = text;
  }

  /** @param {Error} error */
  fail(error) {
    this.tell(`Something went wrong: ${error.message}`);
    this.root.dataset.failed = "true";
    console.error(error);
  }

  /** Move the view into another element without redrawing. @param {HTMLElement} place */
  moveTo(place) {
    this.root.classList.remove("atlas-early");
    place.append(this.root);
    if (this.drawn) this.invalidate("points", "marks", "live");
  }

  close() {
    this.closed = true;
    clearTimeout(this.restTimer);
    this.resizer?.disconnect();
    this.schemes?.disconnect();
    if (this.media) this.media.onchange = null;
    this.root.remove();
  }
}

/** The entries that are not undefined. @param {Partial<AtlasState> | undefined} part */
const clean = (part) => Object.fromEntries(Object.entries(part ?? {}).filter(([, value]) => value !== undefined));

export { EmbeddedSource, sourceAt };
