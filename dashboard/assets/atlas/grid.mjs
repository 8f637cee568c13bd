// Spatial index: points sorted by their cell of a uniform grid (a counting sort, built once). A query looks at a few
// cells only: finding the nearest of a million points takes far less than a millisecond.

import { inside } from "./polygon.mjs";

const PER_CELL = 4,
  MOST = 640;

/** The box of all points. @param {Float32Array} xy @returns {Box} */
export function boundsOf(xy) {
  let x0 = Infinity,
    y0 = Infinity,
    x1 = -Infinity,
    y1 = -Infinity;
  for (let i = 0; i < xy.length; i += 2) {
    const x = xy[i],
      y = xy[i + 1];
    if (x < x0) x0 = x;
    if (x > x1) x1 = x;
    if (y < y0) y0 = y;
    if (y > y1) y1 = y;
  }
  return x0 <= x1 ? [x0, y0, x1, y1] : [0, 0, 1, 1];
}

export class Grid {
  /** @param {Float32Array} xy x0, y0, x1, y1, ...  @param {Box} bounds of the points */
  constructor(xy, bounds) {
    const n = xy.length / 2;
    const [x0, y0, x1, y1] = bounds;
    this.xy = xy;
    this.x0 = x0;
    this.y0 = y0;
    this.side = Math.max(1, Math.min(MOST, Math.ceil(Math.sqrt(n / PER_CELL))));
    this.perX = this.side / (x1 - x0 || 1);
    this.perY = this.side / (y1 - y0 || 1);
    this.starts = new Uint32Array(this.side * this.side + 1);
    this.order = new Uint32Array(n);
    this.fill(n);
  }

  /** @param {number} n */
  fill(n) {
    const { xy, starts, order, side } = this;
    const cell = new Uint32Array(n);
    for (let i = 0; i < n; i++) {
      cell[i] = this.row(xy[2 * i + 1]) * side + this.column(xy[2 * i]);
      starts[cell[i] + 1]++;
    }
    for (let c = 0; c < side * side; c++) starts[c + 1] += starts[c];
    const next = starts.slice(0, -1);
    for (let i = 0; i < n; i++) order[next[cell[i]]++] = i;
  }

  /** @param {number} x */
  column(x) {
    const c = Math.floor((x - this.x0) * this.perX);
    return c > 0 ? (c < this.side ? c : this.side - 1) : 0; // NaN also gives 0
  }

  /** @param {number} y */
  row(y) {
    const r = Math.floor((y - this.y0) * this.perY);
    return r > 0 ? (r < this.side ? r : this.side - 1) : 0;
  }

  /**
   * Call `visit(from, to)` with the runs of `order` whose cells touch the box.
   * @param {number} x0 @param {number} y0 @param {number} x1 @param {number} y1
   * @param {(from: number, to: number) => void} visit
   */
  runs(x0, y0, x1, y1, visit) {
    const c0 = this.column(x0),
      c1 = this.column(x1),
      r0 = this.row(y0),
      r1 = this.row(y1);
    for (let r = r0; r <= r1; r++) visit(this.starts[r * this.side + c0], this.starts[r * this.side + c1 + 1]);
  }

  /**
   * Number of points in cells that touch the box: an upper bound on the number inside.
   * @param {number} x0 @param {number} y0 @param {number} x1 @param {number} y1
   */
  count(x0, y0, x1, y1) {
    let n = 0;
    this.runs(x0, y0, x1, y1, (from, to) => {
      n += to - from;
    });
    return n;
  }

  /**
   * The nearest point within `radius` for which `allowed(id)`, or -1.
   * @param {number} x @param {number} y @param {number} radius @param {(id: number) => boolean} allowed
   */
  nearest(x, y, radius, allowed) {
    const { xy, order } = this;
    let best = -1,
      least = radius * radius;
    this.runs(x - radius, y - radius, x + radius, y + radius, (from, to) => {
      for (let k = from; k < to; k++) {
        const i = order[k];
        const dx = xy[2 * i] - x,
          dy = xy[2 * i + 1] - y,
          d = dx * dx + dy * dy;
        if ((d < least || (d === least && i < best)) && allowed(i)) {
          least = d;
          best = i;
        }
      }
    });
    return best;
  }

  /** A byte per point: 1 inside the polygon `corners` (x0, y0, x1, y1, ...). @param {Corners} corners */
  within(corners) {
    const { xy, order } = this;
    const found = new Uint8Array(xy.length / 2);
    let x0 = Infinity,
      y0 = Infinity,
      x1 = -Infinity,
      y1 = -Infinity;
    for (let i = 0; i < corners.length; i += 2) {
      x0 = Math.min(x0, corners[i]);
      x1 = Math.max(x1, corners[i]);
      y0 = Math.min(y0, corners[i + 1]);
      y1 = Math.max(y1, corners[i + 1]);
    }
    this.runs(x0, y0, x1, y1, (from, to) => {
      for (let k = from; k < to; k++) {
        const i = order[k],
          x = xy[2 * i],
          y = xy[2 * i + 1];
        if (x >= x0 && x <= x1 && y >= y0 && y <= y1 && inside(corners, x, y)) found[i] = 1;
      }
    });
    return found;
  }
}
