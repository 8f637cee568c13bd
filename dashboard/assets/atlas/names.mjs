// Names of single points, once so few are in view that they can be read: fetched when the view rests, and drawn where
// they overlap no other text.

import { visible } from "../dom.mjs";
import { Taken } from "../taken.mjs";
import { plain } from "./looks.mjs";

const FEW = 120; // points in view, at most, for them to be named
const FONT = '11px system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", Arial, sans-serif';
const HIGH = 14,
  GAP = 4,
  LETTERS = 34;

export class PointNames {
  /** @param {AtlasView} view */
  constructor(view) {
    this.view = view;
    /** @type {Map<number, string>} */
    this.known = new Map();
    this.busy = false;
    /** @type {(Uint8Array | null)[]} */
    this.of = [];
    /** @type {number[]} */
    this.bright = [];
  }

  /** Numbers of the points that are neither filtered out nor passed over by a search; listed once for both. */
  brightOnes() {
    const { kept, marked, n } = this.view;
    if (this.of[0] !== kept || this.of[1] !== marked) {
      this.of = [kept, marked];
      this.bright = Array.from({ length: n }, (_, id) => id).filter(
        (id) => (!kept || kept[id]) && (!marked || marked[id]),
      );
    }
    return this.bright;
  }

  /** Numbers of the points in view, without those that are filtered out or not found; none where they are many. */
  seen() {
    const { camera, index, points, kept, marked, bright } = this.view,
      [x0, y0, x1, y1] = camera.box;
    /** @type {number[]} */
    const ids = [];
    /** @param {number} id */
    const look = (id) => {
      const x = points.xy[2 * id],
        y = points.xy[2 * id + 1];
      const inside = x >= x0 && x <= x1 && y >= y0 && y <= y1;
      if (inside && (!kept || kept[id]) && (!marked || marked[id])) ids.push(id);
    };
    if ((kept || marked) && bright <= FEW) this.brightOnes().forEach(look);
    else if (index && index.count(x0, y0, x1, y1) <= 8 * FEW)
      index.runs(x0, y0, x1, y1, (from, to) => {
        for (let k = from; k < to; k++) look(index.order[k]);
      });
    return ids.length <= FEW ? ids : [];
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
