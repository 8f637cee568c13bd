// Names of points at every zoom: of all in view once they are few, else of the most important one of every patch of the
// screen. They are fetched when the view rests, and drawn where they overlap no other text, the most important first.
// Patches are fixed to the map and halve with each doubling of the zoom: panning changes no name, zooming in only adds.

import { visible } from "../dom.mjs";
import { Taken } from "../taken.mjs";
import { plain } from "./looks.mjs";

const FEW = 120; // points in view, at most, for them to be named
const FONT = '11px system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", Arial, sans-serif';
const HIGH = 14,
  GAP = 4,
  LETTERS = 34,
  PATCH = [110, 38]; // smallest width and height of a patch on the screen
const UNREADABLE = 65535; // rank of a point that is named only among few

export class PointNames {
  /** @param {AtlasView} view */
  constructor(view) {
    this.view = view;
    /** @type {Map<number, string>} */
    this.known = new Map();
    this.busy = false;
    /** @type {number[]} */
    this.chosen = [];
    /** @type {Numbers | null} */
    this.ranks = null; // of every point; 0 is the most important
  }

  /** Ask for the order in which points are named; without one it is that of their numbers. */
  async rank() {
    this.ranks = await this.view.source.ranks();
    this.view.invalidate("marks");
  }

  /** Numbers of the points to name, the most important first; while the view moves those of its last rest. */
  seen() {
    if (!this.view.moving) this.chosen = this.choose();
    return this.chosen;
  }

  /** Of the points in view that are neither filtered out nor dimmed: all where they are few, else one a patch. */
  choose() {
    const { camera, index, points, kept, vivid, hits } = this.view,
      { ranks } = this,
      [x0, y0, x1, y1] = camera.box;
    if (!index) return [];
    const size = PATCH.map((pixels) => pixels / 2 ** Math.floor(Math.log2(camera.zoom)));
    /** @type {number[]} */
    const few = [];
    /** @type {Map<number, number>} */
    const best = new Map();
    /** @param {number} id */
    const rank = (id) => (hits.has(id) ? -1 : (ranks?.[id] ?? id));
    /** @type {number[]} */
    const found = []; // all of them are named where they glow
    /** @param {number} id */
    const look = (id) => {
      const x = points.xy[2 * id],
        y = points.xy[2 * id + 1];
      if (!(x >= x0 && x <= x1 && y >= y0 && y <= y1) || (kept && !kept[id]) || (vivid && !vivid[id])) return;
      if (hits.has(id)) found.push(id);
      else if (few.length <= FEW) few.push(id);
      const patch = Math.floor(x / size[0]) * 8192 + Math.floor(y / size[1]),
        other = best.get(patch);
      if (other === undefined || rank(id) < rank(other)) best.set(patch, id);
    };
    index.runs(x0, y0, x1, y1, (from, to) => {
      for (let k = from; k < to; k++) look(index.order[k]);
    });
    const named = few.length <= FEW ? few : [...best.values()].filter((id) => !ranks || ranks[id] < UNREADABLE);
    return [...new Set([...found, ...named])].sort((a, b) => rank(a) - rank(b) || a - b);
  }

  /** Ask for the names that are not known yet; the marks are drawn again when they are here. @param {number[]} seen */
  async fetch(seen) {
    const ids = seen.filter((id) => !this.known.has(id));
    if (!ids.length || this.busy) return;
    this.busy = true;
    try {
      for (const { point, label } of await this.view.source.texts(ids)) this.known.set(point, label);
    } finally {
      this.busy = false;
    }
    this.view.invalidate("marks");
  }

  /**
   * @param {CanvasRenderingContext2D} context @param {number[]} seen @param {ShownLabel[]} labels
   * @param {AtlasTheme} theme
   */
  draw(context, seen, labels, theme) {
    const { camera, n } = this.view,
      aside = plain(n, camera.zoom / camera.whole).radius + GAP;
    const taken = new Taken(
      labels.map(({ label, x, y }) => [
        x - label.width / 2,
        y - label.height / 2,
        x + label.width / 2,
        y + label.height / 2,
      ]),
    );
    context.font = FONT;
    context.textAlign = "left";
    context.textBaseline = "middle";
    context.lineJoin = "round";
    context.lineWidth = 3;
    context.strokeStyle = theme.halo;
    context.fillStyle = theme.text;
    for (const id of seen) {
      const text = this.known.get(id);
      if (!text) continue;
      const [px, py] = this.view.place(id),
        x = camera.screenX(px) + aside,
        y = camera.screenY(py);
      const isolated = `\u2068${visible(text.trim() || text, LETTERS)}\u2069`,
        wide = context.measureText(isolated).width;
      if (!taken.claim([x, y - HIGH / 2, x + wide, y + HIGH / 2])) continue;
      context.strokeText(isolated, x, y);
      context.fillText(isolated, x, y);
    }
  }
}
