// Three sheets: edges (redrawn in slices while the visitor moves on), items, and what the pointer lights.
//
// While the view moves, the sheet of edges is only shifted and scaled, and so is that of many items; both are drawn again
// when the view rests.

import { contextOf } from "../dom.mjs";
import { Taken } from "../taken.mjs";
import { boxOf, curveOf, drawMark, halo, lettersOf, lineOf, pointOf, radiusOf, tokenText } from "./marks.mjs";
import { KINDS } from "./model.mjs";

const SLICE = 7; // milliseconds of edges a frame
const AROUND = 0.2; // of the width and height: edges and items are drawn so far beyond the view
const MANY = 400; // items that are drawn again only when the view rests
const CHUNK = 150; // edges between two looks at the clock
const REST = 140;
const LEVELS = 5;
const NAMED = 10; // items with their names, where all is in view
const MOST_NAMED = 80; // closer
const LINE = 14; // pixels between two names
const REACH = 7; // pixels from a line that the pointer still takes
export const FRAME = { left: 54, right: 18, top: 16, bottom: 34 };

export class Canvas {
  /** @type {Scene} */
  scene;
  /** @type {Layout} */
  layout;
  /** @type {string[]} */
  tokenTexts = [];
  closed = false;
  /** @type {"live" | "nodes" | null} */
  due = null;
  /** @type {number | null} */
  frame = null;
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  resting;
  /** @type {{ at: number, camera: GraphCamera } | null} */
  job = null; // edges that are being drawn
  /** @type {GraphCamera | null} */
  drawn = null; // camera of the sheet of edges
  /** @type {GraphCamera | null} */
  nodesDrawn = null;
  /** @type {{ node: number, box: number[] }[]} */
  named = []; // the names that are drawn

  /** @param {HTMLElement} root @param {Record<string, GraphTheme>} themes */
  constructor(root, themes) {
    this.root = root;
    this.themes = themes;
    /** @param {string} name */
    const sheet = (name) => {
      const made = document.createElement("canvas");
      made.className = `wb-graph-sheet wb-graph-${name}`;
      root.append(made);
      return made;
    };
    this.edges = sheet("edges");
    this.nodes = sheet("nodes");
    this.live = sheet("live");
    this.spare = document.createElement("canvas");
    this.pen = contextOf(this.spare, { willReadFrequently: true });
    this.camera = { x: 0, y: 0, zoom: 1 };
    this.width = this.height = 0;
    this.ratio = 1;
    this.whole = 1; // the zoom that shows all
    this.fitted = true;
    this.hovered = this.chosen = -1; // numbers of items
    this.pointed = this.link = -1; // numbers of links: at the pointer, and the chosen one
  }

  get theme() {
    return this.themes[document.documentElement.dataset.scheme === "dark" ? "dark" : "light"];
  }

  /** @param {number} width @param {number} height */
  resize(width, height) {
    this.width = width;
    this.height = height;
    this.ratio = Math.min(window.devicePixelRatio || 1, 2);
    size(this.live, width, height, this.ratio);
    for (const sheet of [this.edges, this.spare, this.nodes]) {
      size(sheet, width * (1 + 2 * AROUND), height * (1 + 2 * AROUND), this.ratio);
      Object.assign(sheet.style, { left: `${-width * AROUND}px`, top: `${-height * AROUND}px` });
    }
  }

  /**
   * A new scene with its layout; the camera stays unless all was in view.
   * @param {Scene} scene @param {Layout} layout
   */
  show(scene, layout) {
    this.scene = scene;
    this.layout = layout;
    const largest = Math.max(...scene.items.map((item) => (item.kind > KINDS.ERROR ? 0 : Math.abs(item.size))), 1e-12);
    for (const item of scene.items) item.r = radiusOf(item, largest, scene.roomy);
    this.hovered = this.pointed = -1;
    if (this.fitted) this.fit();
    this.redraw();
  }

  fit() {
    const { left, right, top, bottom } = FRAME,
      { layout } = this;
    const zoom = Math.min(1, (this.width - left - right) / layout.width, (this.height - top - bottom) / layout.height);
    this.whole = Math.max(zoom, 0.02);
    this.camera = {
      zoom: this.whole,
      x: left + Math.max(0, (this.width - left - right - layout.width * zoom) / 2),
      y: top + Math.max(0, (this.height - top - bottom - layout.height * zoom) / 2),
    };
    this.fitted = true;
  }

  /** @param {number} dx @param {number} dy */
  pan(dx, dy) {
    this.camera.x += dx;
    this.camera.y += dy;
    this.moved();
  }

  /** @param {number} factor @param {number} x @param {number} y */
  zoomAt(factor, x, y) {
    const { camera } = this;
    const zoom = Math.min(6, Math.max(this.whole * 0.5, camera.zoom * factor));
    camera.x = x - ((x - camera.x) * zoom) / camera.zoom;
    camera.y = y - ((y - camera.y) * zoom) / camera.zoom;
    camera.zoom = zoom;
    this.moved();
  }

  /** Bring an item into view. @param {Item} item */
  reveal(item) {
    const [x, y] = this.place(item),
      { left, right, top, bottom } = FRAME;
    if (x > left + 20 && x < this.width - right - 20 && y > top && y < this.height - bottom) return;
    this.pan(this.width / 2 - x, this.height / 2 - y);
  }

  moved() {
    this.fitted = false;
    this.job = null;
    clearTimeout(this.resting);
    this.resting = setTimeout(() => this.redraw(), REST);
    this.ask(this.scene.items.length > MANY ? "live" : "nodes");
  }

  redraw() {
    this.startEdges();
    this.ask("nodes");
  }

  /** Draw in the next frame; hovering alone draws the live sheet alone. @param {"live" | "nodes"} what */
  ask(what) {
    this.due = this.due === "nodes" ? "nodes" : what;
    this.frame ??= requestAnimationFrame(() => {
      this.frame = null;
      const all = this.due === "nodes";
      this.due = null;
      if (this.closed || !this.scene) return;
      if (all) this.drawNodes();
      this.shift(this.edges, this.drawn);
      this.shift(this.nodes, this.nodesDrawn);
      this.drawLive();
      if (this.job) this.slice();
    });
  }

  // Edges

  startEdges() {
    if (!this.scene || !this.width) return;
    const { ratio, pen: context } = this;
    this.job = { at: 0, camera: { ...this.camera } };
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.clearRect(0, 0, this.spare.width, this.spare.height);
    context.setTransform(ratio, 0, 0, ratio, this.width * AROUND * ratio, this.height * AROUND * ratio);
    context.strokeStyle = this.theme.grid;
    context.lineWidth = 1;
    context.beginPath();
    for (const row of this.layout.rows.filter(({ used }) => used)) {
      const y = Math.round(row.y * this.camera.zoom + this.camera.y) + 0.5;
      context.moveTo(-this.width * AROUND, y);
      context.lineTo(this.width * (1 + AROUND), y);
    }
    context.stroke();
    this.ask("live");
  }

  /** Draw edges for a few milliseconds, the strongest last; when all are drawn, show them. */
  slice() {
    const { job, scene, pen: context } = this;
    if (!job) return;
    const { links } = scene,
      { camera } = job;
    const end = performance.now() + SLICE,
      n = links.from.length;
    const quiet = Math.max(0.2, Math.min(1, Math.sqrt((scene.isCircuit ? 100 : 1200) / n)));
    while (job.at < n && performance.now() < end) {
      for (const stop = job.at + CHUNK; job.at < Math.min(n, stop); )
        job.at = this.batch(context, links, camera, job.at, quiet);
      context.getImageData(0, 0, 1, 1); // a browser records strokes and draws them when they are needed: here, not all at the end
    }
    if (job.at < n) return this.ask("live");
    this.job = null;
    const shown = contextOf(this.edges);
    shown.setTransform(1, 0, 0, 1, 0, 0);
    shown.clearRect(0, 0, this.edges.width, this.edges.height);
    shown.drawImage(this.spare, 0, 0);
    this.drawn = camera;
    this.root.dataset.edges = String(n);
    this.shift(this.edges, camera);
  }

  /**
   * One stroke for the next edges of each colour and about one strength; returns the number of the next edge.
   * @param {CanvasRenderingContext2D} context @param {Links} links @param {GraphCamera} camera
   * @param {number} start @param {number} quiet
   */
  batch(context, links, camera, start, quiet) {
    const level = levelOf(links.strength[start]),
      limit = Math.min(links.from.length, start + 120);
    let e = start;
    for (const [line, [colour, dash]] of this.theme.lines.entries()) {
      context.beginPath();
      for (e = start; e < limit && levelOf(links.strength[e]) === level; e++) {
        if (lineOf(links, e) === line) this.trace(context, e, camera);
      }
      context.strokeStyle = colour;
      context.setLineDash(dash);
      context.lineWidth = 0.6 + 0.65 * level;
      context.globalAlpha = this.scene.isCircuit ? Math.max(0.4, 0.9 * quiet) : quiet * (0.1 + 0.13 * level);
      context.stroke();
    }
    context.globalAlpha = 1;
    context.setLineDash([]);
    return e;
  }

  /** @param {CanvasRenderingContext2D} context @param {number} e @param {GraphCamera} camera */
  trace(context, e, camera) {
    const [ax, ay, bx, by, cx, cy, dx, dy] = curveOf(this.scene, e, camera);
    context.moveTo(ax, ay);
    context.bezierCurveTo(bx, by, cx, cy, dx, dy);
  }

  /**
   * Put a sheet that was drawn with another camera where it lies in the present view.
   * @param {HTMLCanvasElement} sheet @param {GraphCamera | null} drawn
   */
  shift(sheet, drawn) {
    const { camera, width, height } = this;
    if (!drawn) return;
    const scale = camera.zoom / drawn.zoom;
    const x = camera.x - drawn.x * scale + width * AROUND * (1 - scale),
      y = camera.y - drawn.y * scale + height * AROUND * (1 - scale);
    sheet.style.transform = scale === 1 && !x && !y ? "" : `translate(${x}px, ${y}px) scale(${scale})`;
  }

  // Items

  /** @param {Item} item */
  place(item) {
    const { x, y, zoom } = this.camera;
    return [item.x * zoom + x, item.y * zoom + y];
  }

  drawNodes() {
    const context = this.fresh(this.nodes, AROUND),
      { scene } = this;
    this.nodesDrawn = { ...this.camera };
    this.letters(context);
    for (const item of scene.items) this.mark(context, item, 1);
  }

  /** The letter of its input on each link, near its reader. @param {CanvasRenderingContext2D} context */
  letters(context) {
    context.font = `700 11px ${this.theme.mono}`;
    for (const { letter, at, colour } of lettersOf(this.scene, this.camera, this.theme))
      halo(context, letter, at[0] - 3, at[1], colour, this.theme.surface);
  }

  /** @param {CanvasRenderingContext2D} context @param {Item} item @param {number} scale */
  mark(context, item, scale) {
    const [x, y] = this.place(item);
    const [beyondX, beyondY] = [this.width * AROUND + 100, this.height * AROUND + 20];
    if (x < -beyondX || y < -beyondY || x > this.width + beyondX || y > this.height + beyondY) return;
    const small = Math.max(0.55, Math.min(1, this.camera.zoom)),
      r = Math.max(2, item.r * small) * scale;
    drawMark(context, item, x, y, r, this.theme, this.ratio);
  }

  /**
   * Names of items, the first in the list first, where they overlap no box and no other name: right of the item, left of
   * it, or some lines higher or lower. `named` has what was drawn, for the tests.
   * @param {CanvasRenderingContext2D} context @param {number[]} which @param {number} [most] letters
   */
  names(context, which, most = 26) {
    const { theme, scene } = this,
      taken = new Taken(scene.items.filter((item) => boxOf(item)).map((item) => this.boxOn(item)));
    context.font = `12px ${theme.font}`;
    this.named = [];
    for (const item of which.map((k) => scene.items[k])) {
      const [x, y] = this.place(item);
      if (x < 0 || y < 0 || x > this.width || y > this.height || boxOf(item)) continue;
      const text = tokenText(item.label, most),
        width = context.measureText(text).width;
      const lefts = [x + 9, x - 9 - width].filter((left) => left >= FRAME.left && left + width <= this.width - 2);
      const places = [0, -1, 1, -2, 2, -3, 3].flatMap((line) => lefts.map((left) => [left, y + line * LINE]));
      const at = places.find(
        ([left, middle]) =>
          middle > LINE / 2 &&
          middle < this.height - FRAME.bottom &&
          taken.claim([left, middle - LINE / 2, left + width, middle + LINE / 2]),
      );
      if (!at) continue;
      const [left, middle] = at;
      if (middle !== y) {
        context.strokeStyle = theme.muted;
        context.lineWidth = 1;
        context.beginPath();
        context.moveTo(x, y);
        context.lineTo(left > x ? left - 2 : left + width + 2, middle);
        context.stroke();
      }
      this.named.push({ node: item.node, box: [left, middle - LINE / 2, left + width, middle + LINE / 2] });
      halo(context, text, left, middle, theme.text, theme.surface);
    }
  }

  /** Where an item that is a box lies on the screen. @param {Item} item */
  boxOn(item) {
    const [x, y] = this.place(item),
      { width, height } = boxOf(item) ?? { width: 0, height: 0 };
    return [x - width / 2, y - height / 2, x + width / 2, y + height / 2];
  }

  /** Layers left, tokens below: they stay in view. @param {CanvasRenderingContext2D} context */
  axes(context) {
    const { theme, layout, camera, width, height } = this;
    context.textBaseline = "middle";
    let last = Infinity;
    for (const row of layout.rows) {
      const y = row.y * camera.zoom + camera.y;
      if (!row.used || y < FRAME.top || y > height - FRAME.bottom) continue;
      if (last - y < 13) continue;
      last = y;
      context.font = `11px ${theme.font}`;
      context.textAlign = "right";
      halo(context, row.name, FRAME.left - 10, y, theme.muted, theme.surface);
    }
    context.textAlign = "left";
    context.fillStyle = theme.surface;
    context.fillRect(0, height - FRAME.bottom + 6, width, FRAME.bottom);
    context.fillStyle = theme.grid;
    context.fillRect(0, height - FRAME.bottom + 6, width, 1);
    this.tokens(context);
  }

  /** @param {CanvasRenderingContext2D} context */
  tokens(context) {
    const { theme, layout, camera, height } = this,
      y = height - (FRAME.bottom - 6) / 2 + 1;
    context.font = `12px ${theme.mono}`;
    context.textAlign = "center";
    const chosen = this.scene.items[this.chosen]?.position;
    for (const { position, x, width } of layout.columns) {
      const at = (x + (this.scene.roomy ? 14 : width / 2)) * camera.zoom + camera.x,
        room = width * camera.zoom - 4;
      if (at < -room || at > this.width + room || room < 9) continue;
      const letters = Math.max(1, Math.floor(room / 7.3));
      context.fillStyle = position === chosen ? theme.accent : theme.text;
      context.textAlign = this.scene.roomy ? "left" : "center";
      context.fillText(tokenText(this.tokenTexts[position], letters), this.scene.roomy ? at - 5 : at, y);
    }
    context.textAlign = "left";
  }

  // The pointer

  /** The item at a position of the screen, or -1. @param {number} x @param {number} y */
  hit(x, y) {
    if (!this.scene) return -1;
    let best = -1,
      nearest = 12 * 12;
    this.scene.items.forEach((item, i) => {
      const [ix, iy] = this.place(item),
        box = boxOf(item);
      if (box && Math.abs(x - ix) < box.width / 2 && Math.abs(y - iy) < box.height / 2) [best, nearest] = [i, 0];
      const d = (ix - x) ** 2 + (iy - y) ** 2;
      if (!box && d < nearest) [best, nearest] = [i, d];
    });
    return best;
  }

  /** The line at a position of the screen, or -1: of a chosen node only its own. @param {number} x @param {number} y */
  linkAt(x, y) {
    let best = -1,
      nearest = REACH;
    for (let e = 0; this.scene && e < this.scene.links.from.length; e++) {
      const { isCircuit, links } = this.scene;
      if (!isCircuit && this.chosen >= 0 && links.from[e] !== this.chosen && links.to[e] !== this.chosen) continue;
      const curve = curveOf(this.scene, e, this.camera),
        [ax, ay, bx, by, cx, cy, dx, dy] = curve;
      if (x < Math.min(ax, bx, cx, dx) - REACH || x > Math.max(ax, bx, cx, dx) + REACH) continue;
      if (y < Math.min(ay, by, cy, dy) - REACH || y > Math.max(ay, by, cy, dy) + REACH) continue;
      for (let t = 0.02; t < 1; t += 0.015) {
        const [px, py] = pointOf(curve, t),
          d = Math.hypot(px - x, py - y);
        if (d < nearest) [best, nearest] = [e, d];
      }
    }
    return best;
  }

  /** The items that the line at a position joins; none where there is no line. @param {number} x @param {number} y */
  endsAt(x, y) {
    const { items, links } = this.scene,
      link = this.linkAt(x, y);
    return link < 0 || (links.via[link] && !this.scene.isCircuit)
      ? []
      : [items[links.from[link]], items[links.to[link]]];
  }

  /** @param {number} hovered @param {number} chosen @param {number} [pointed] a link @param {number} [link] the chosen one */
  light(hovered, chosen, pointed = -1, link = this.link) {
    const before = [this.hovered, this.chosen, this.pointed, this.link];
    if (String(before) === String([hovered, chosen, pointed, link])) return;
    const moved = chosen !== this.chosen || link !== this.link;
    Object.assign(this, { hovered, chosen, pointed, link });
    this.ask(moved ? "nodes" : "live");
  }

  drawLive() {
    const context = this.fresh(this.live),
      { scene, theme } = this,
      { links, items } = scene;
    const one = this.hovered >= 0 ? -1 : this.pointed >= 0 ? this.pointed : this.link, // a link alone
      lit = one >= 0 ? links.to[one] : this.hovered >= 0 ? this.hovered : this.chosen,
      named = scene.isCircuit ? scene.ranked.slice(0, MOST_NAMED) : [];
    this.axes(context);
    this.root.classList.toggle("wb-graph-dim", lit >= 0);
    if (lit < 0 || !items[lit]) {
      const closer = Math.max(1, this.camera.zoom / this.whole) ** 2,
        most = Math.min(MOST_NAMED, Math.round(NAMED * closer));
      return this.names(context, scene.isCircuit ? named : scene.ranked.slice(0, most));
    }
    const beside = one >= 0 ? [one] : [...links.into[lit], ...links.out[lit]];
    beside.sort((a, b) => links.strength[a] - links.strength[b]);
    const most = Math.max(...beside.map((e) => links.strength[e]), 1e-9);
    for (const e of beside) {
      const strength = Math.sqrt(links.strength[e] / most),
        [colour, dash] = theme.lines[lineOf(links, e)];
      context.beginPath();
      this.trace(context, e, this.camera);
      context.strokeStyle = colour;
      context.setLineDash(dash);
      context.lineWidth = 0.6 + 2.6 * strength;
      context.globalAlpha = 0.2 + 0.6 * strength;
      context.stroke();
    }
    context.globalAlpha = 1;
    context.setLineDash([]);
    const near = beside.map((e) => (links.from[e] === lit ? links.to[e] : links.from[e])).reverse();
    for (const i of near) this.mark(context, items[i], 1);
    this.mark(context, items[lit], 1.35);
    this.rings(context, this.chosen >= 0 && this.chosen !== lit ? [lit, this.chosen] : [lit], theme.text);
    this.names(
      context,
      [...new Set([lit, ...near.slice(0, 14), ...named])].filter((k) => items[k].kind < KINDS.TOKEN),
    );
  }

  /** @param {CanvasRenderingContext2D} context @param {number[]} which @param {string} colour */
  rings(context, which, colour) {
    for (const i of which) {
      const item = this.scene.items[i];
      if (!item || boxOf(item)) continue;
      const [x, y] = this.place(item);
      context.beginPath();
      context.arc(x, y, Math.max(5, item.r * Math.min(1, this.camera.zoom) + 4), 0, 2 * Math.PI);
      context.strokeStyle = colour;
      context.lineWidth = 1.8;
      context.stroke();
    }
  }

  /**
   * A cleared sheet; one that reaches `around` beyond the view has its origin at the view's.
   * @param {HTMLCanvasElement} sheet @param {number} [around]
   */
  fresh(sheet, around = 0) {
    const context = contextOf(sheet),
      { ratio } = this;
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.clearRect(0, 0, sheet.width, sheet.height);
    context.setTransform(ratio, 0, 0, ratio, this.width * around * ratio, this.height * around * ratio);
    return context;
  }

  close() {
    this.closed = true;
    clearTimeout(this.resting);
  }
}

/** @param {number} strength */
const levelOf = (strength) => Math.min(LEVELS - 1, Math.floor(LEVELS * Math.sqrt(strength) * 1.3));

/** @param {HTMLCanvasElement} sheet @param {number} width @param {number} height @param {number} ratio */
function size(sheet, width, height, ratio) {
  sheet.width = Math.max(1, Math.round(width * ratio));
  sheet.height = Math.max(1, Math.round(height * ratio));
  Object.assign(sheet.style, { width: `${width}px`, height: `${height}px` });
}
