// Draws the points by the CPU, as a machine without a graphics card would compute WebGL there too, a microsecond a point.
// The order of points does not matter. Each adds its weight -ln(1 - alpha), and its colour times that weight, to the
// pixels that it covers; a pixel shows the mean colour with alpha 1 - exp(-weight). While the view is dragged, the picture
// is moved and only the strips that come into view are drawn; while it zooms, fewer points are drawn when frames get slow;
// at rest, all of them.

import { contextOf } from "../dom.mjs";
import { DIMMED } from "./looks.mjs";

/** @typedef {{ offsets: Int32Array, cover: Float32Array, edge: number }} Stamp */
/** @typedef {[left: number, top: number, right: number, bottom: number]} Part of the picture, in pixels */
/** @typedef {{ view: number[], inks: Float32Array, stamp: Stamp, every: number, part: Part }} Frame */
/** @typedef {{ x: number, y: number, scale: number, every: number }} Shown */
/**
 * @typedef {object} Scene
 * @property {import("./camera.mjs").Camera} camera
 * @property {Float32Array} colours the table of looks.mjs
 * @property {number} radius of a plain point, in CSS pixels
 * @property {import("./grid.mjs").Grid | null} grid
 * @property {boolean} selecting some points are dimmed
 */

const SLOW = 45; // milliseconds per frame above which fewer points are drawn while moving
const FEWEST = 16; // at least every so many-th point is drawn
const NEAR = 0.4; // share of the points in view below which the grid is asked for them
const STEPS = 1024,
  HEAVIEST = 8;
const ALPHA = Uint8Array.from({ length: STEPS + 1 }, (_, i) =>
  Math.round(255 * (1 - Math.exp((-HEAVIEST * i) / STEPS))),
);

export class Renderer {
  /** The picture: its middle in the world, its scale, and one in how many points it holds. @type {Shown | null} */
  shown = null;
  /** @type {ImageData} */
  image;
  /** @type {Uint32Array} */
  pixels;
  /** @type {Float32Array} */
  sums;

  /** @param {HTMLCanvasElement} canvas */
  constructor(canvas) {
    this.canvas = canvas;
    this.context = contextOf(canvas);
    this.wholeCost = 0; // milliseconds to draw all points, as last measured
    this.stampKey = "";
    this.stamp = stampOf(1, canvas.width);
    this.allot();
  }

  /** @param {number} width of the canvas, in its own pixels @param {number} height */
  resize(width, height) {
    if (this.canvas.width === width && this.canvas.height === height) return;
    Object.assign(this.canvas, { width, height });
    this.allot();
  }

  allot() {
    this.shown = null;
    this.image = new ImageData(this.canvas.width, this.canvas.height);
    this.pixels = new Uint32Array(this.image.data.buffer);
    this.sums = new Float32Array(4 * this.pixels.length);
  }

  /**
   * Draw now, with fewer points where `moving` allows it. Returns the fraction of the points that was drawn.
   * @param {MapPoints} points @param {Scene} scene @param {boolean} moving
   */
  draw(points, scene, moving) {
    const { camera, grid } = scene,
      { width, height } = this.canvas,
      n = points.codes.length;
    const every = moving && this.wholeCost > SLOW ? Math.min(FEWEST, Math.ceil(this.wholeCost / SLOW)) : 1;
    this.shown = { x: camera.x, y: camera.y, scale: (camera.zoom * width) / camera.width, every };
    const frame = this.framed(scene, this.shown, [0, 0, width, height]);
    const started = performance.now();
    if (grid && grid.count(...camera.box) < NEAR * n) {
      grid.runs(...camera.box, (from, to) => this.add(points, grid.order, from, to, frame));
    } else this.add(points, null, 0, n, frame);
    this.develop(frame.part, 0);
    this.context.putImageData(this.image, 0, 0);
    this.wholeCost = (performance.now() - started) * every;
    return 1 / every;
  }

  /**
   * Move the picture to where the camera is, to half a pixel, and draw what comes into view. Nothing but the camera may
   * have changed since it was drawn. Returns whether it could: not at another zoom, nor far away.
   * @param {MapPoints} points @param {Scene} scene
   */
  shift(points, scene) {
    const { camera, grid } = scene,
      { shown, pixels } = this,
      { width, height } = this.canvas;
    if (!shown || !grid || shown.scale !== (camera.zoom * width) / camera.width) return false;
    const dx = Math.round((shown.x - camera.x) * shown.scale),
      dy = Math.round((camera.y - shown.y) * shown.scale);
    if (Math.abs(dx) > width / 4 || Math.abs(dy) > height / 4) return false;
    const by = dy * width + dx;
    if (by > 0) pixels.copyWithin(by, 0, pixels.length - by);
    else pixels.copyWithin(0, -by);
    this.shown = { ...shown, x: shown.x - dx / shown.scale, y: shown.y + dy / shown.scale };
    if (dx) this.strip(points, scene, this.shown, dx > 0 ? [0, 0, dx, height] : [width + dx, 0, width, height]);
    if (dy) this.strip(points, scene, this.shown, dy > 0 ? [0, 0, width, dy] : [0, height + dy, width, height]);
    this.context.putImageData(this.image, 0, 0);
    return true;
  }

  /** Draw a part of the picture. @param {MapPoints} points @param {Scene} scene @param {Shown} shown @param {Part} given */
  strip(points, scene, shown, given) {
    const { width, height } = this.canvas,
      { edge } = this.stamp,
      more = 2 * edge + 1; // points at the rim of a picture are not drawn
    const [left, top, right, bottom] = given;
    const part = /** @type {Part} */ ([
      Math.max(0, left - more),
      Math.max(0, top - more),
      Math.min(width, right + more),
      Math.min(height, bottom + more),
    ]);
    const frame = this.framed(scene, shown, part),
      [, , ox, oy] = frame.view,
      { grid } = scene;
    if (!grid) return;
    const box = /** @type {Box} */ ([
      (part[0] - edge - ox) / shown.scale,
      (oy - part[3] - edge) / shown.scale,
      (part[2] + edge - ox) / shown.scale,
      (oy - part[1] + edge) / shown.scale,
    ]);
    grid.runs(...box, (from, to) => this.add(points, grid.order, from, to, frame));
    this.develop(part, edge);
  }

  /**
   * How a part of the picture is drawn. @param {Scene} scene @param {Shown} shown @param {Part} part
   * @returns {Frame}
   */
  framed({ camera, colours, radius, selecting }, { x, y, scale, every }, part) {
    const { width, height } = this.canvas;
    return {
      view: [scale, -scale, width / 2 - x * scale, height / 2 + y * scale],
      inks: inksOf(colours, every, selecting ? 8 : 1),
      stamp: this.stampFor((radius * width) / camera.width),
      every,
      part,
    };
  }

  /**
   * Add points `from` to `to`, of an order or as they lie.
   * @param {MapPoints} points @param {Uint32Array | null} order @param {number} from @param {number} to
   * @param {Frame} frame
   */
  add({ xy, codes }, order, from, to, { view, inks, stamp, every, part }) {
    const { sums } = this,
      { width, height } = this.canvas;
    const [sx, sy, ox, oy] = view,
      { offsets, cover, edge } = stamp;
    const left = Math.max(edge, part[0] - edge),
      top = Math.max(edge, part[1] - edge),
      right = Math.min(width - edge, part[2] + edge),
      bottom = Math.min(height - edge, part[3] + edge);
    for (let k = from; k < to; k += every) {
      const i = order ? order[k] : k;
      const px = xy[2 * i] * sx + ox,
        py = xy[2 * i + 1] * sy + oy;
      if (!(px >= left && px < right && py >= top && py < bottom)) continue;
      const ink = codes[i] * 4,
        weight = inks[ink + 3];
      if (weight === 0) continue;
      const at = (py | 0) * width + (px | 0);
      const r = inks[ink],
        g = inks[ink + 1],
        b = inks[ink + 2];
      for (let s = 0; s < offsets.length; s++) {
        const p = (at + offsets[s]) * 4,
          c = cover[s];
        sums[p] += r * c;
        sums[p + 1] += g * c;
        sums[p + 2] += b * c;
        sums[p + 3] += weight * c;
      }
    }
  }

  /**
   * Turn the sums of a part into pixels. Sums are empty afterwards, also those of points at its rim.
   * @param {Part} part @param {number} edge
   */
  develop([left, top, right, bottom], edge) {
    const { sums, pixels } = this,
      { width, height } = this.canvas,
      per = STEPS / HEAVIEST,
      around = 2 * edge;
    for (let y = Math.max(0, top - around); y < Math.min(height, bottom + around); y++) {
      const end = y * width + Math.min(width, right + around);
      for (let p = y * width + Math.max(0, left - around); p < end; p++) {
        const s = 4 * p,
          weight = sums[s + 3],
          x = p - y * width,
          within = x >= left && x < right && y >= top && y < bottom;
        if (weight === 0) {
          if (within) pixels[p] = 0;
          continue;
        }
        if (within) {
          const alpha = ALPHA[weight >= HEAVIEST ? STEPS : (weight * per) | 0],
            f = 1 / weight;
          pixels[p] = (alpha << 24) | ((sums[s + 2] * f) << 16) | ((sums[s + 1] * f) << 8) | (sums[s] * f);
        }
        sums[s] = sums[s + 1] = sums[s + 2] = sums[s + 3] = 0;
      }
    }
  }

  /** Pixels that a point covers. @param {number} radius */
  stampFor(radius) {
    const { width } = this.canvas,
      key = `${radius.toFixed(3)} ${width}`;
    if (this.stampKey !== key) this.stamp = stampOf(radius, width);
    this.stampKey = key;
    return this.stamp;
  }
}

/**
 * Colour times weight, and weight, of each code. Thinned points also count for the omitted; plain ones outweigh dimmed.
 * @param {Float32Array} colours @param {number} every @param {number} emphasis
 */
function inksOf(colours, every, emphasis) {
  const inks = new Float32Array(colours.length);
  for (let c = 0; c < colours.length; c += 4) {
    const alpha = Math.min(colours[c + 3], 0.97);
    const weight = -Math.log(1 - alpha) * every * (c < 4 * DIMMED ? emphasis : 1);
    for (let j = 0; j < 3; j++) inks[c + j] = colours[c + j] * weight;
    inks[c + 3] = weight;
  }
  return inks;
}

/** Offsets in the picture, and the covered fraction of each pixel. @param {number} radius @param {number} width */
function stampOf(radius, width) {
  const edge = Math.ceil(radius + 0.5) - 1;
  const offsets = [],
    cover = [];
  for (let y = -edge; y <= edge; y++) {
    for (let x = -edge; x <= edge; x++) {
      const c = Math.min(1, radius + 0.5 - Math.hypot(x, y));
      if (c > 0.08) {
        offsets.push(y * width + x);
        cover.push(c);
      }
    }
  }
  return { offsets: Int32Array.from(offsets), cover: Float32Array.from(cover), edge };
}
