// Density of points: a smoothed grid, drawn as contours over the map and as a picture in the corner.

const SIDE = 176,
  BLUR = 2;
const MASSES = [0.95, 0.8, 0.6, 0.4, 0.2]; // each contour encloses this share of the points

export class Density {
  /** @param {Float32Array} xy @param {Box} bounds */
  constructor(xy, bounds) {
    const [x0, y0, x1, y1] = bounds;
    const pad = 0.06 * Math.max(x1 - x0, y1 - y0, 1e-9);
    this.bounds = [x0 - pad, y0 - pad, x1 + pad, y1 + pad];
    const wide = x1 - x0 + 2 * pad,
      high = y1 - y0 + 2 * pad;
    this.columns = Math.max(8, Math.round((SIDE * wide) / Math.max(wide, high)));
    this.rows = Math.max(8, Math.round((SIDE * high) / Math.max(wide, high)));
    this.perX = this.columns / wide;
    this.perY = this.rows / high;
    this.cells = this.counted(xy);
    for (let i = 0; i < 3; i++) this.cells = this.blurred(this.cells); // three box blurs approximate a Gaussian
  }

  /** @param {Float32Array} xy */
  counted(xy) {
    const {
      columns,
      bounds: [x0, y0],
      perX,
      perY,
    } = this;
    const cells = new Float32Array(columns * this.rows);
    for (let i = 0; i < xy.length; i += 2) {
      const cell = (((xy[i + 1] - y0) * perY) | 0) * columns + (((xy[i] - x0) * perX) | 0);
      if (cell >= 0 && cell < cells.length) cells[cell]++;
    }
    return cells;
  }

  /** @param {Float32Array} cells */
  blurred(cells) {
    return this.swept(
      this.swept(cells, this.columns, this.rows, 1, this.columns),
      this.rows,
      this.columns,
      this.columns,
      1,
    );
  }

  /**
   * A running mean along one direction.
   * @param {Float32Array} cells @param {number} length @param {number} lines @param {number} step
   * @param {number} between
   */
  swept(cells, length, lines, step, between) {
    const out = new Float32Array(cells.length);
    for (let line = 0; line < lines; line++) {
      const start = line * between;
      let sum = 0;
      for (let i = -BLUR; i < length; i++) {
        if (i + BLUR < length) sum += cells[start + (i + BLUR) * step];
        if (i - BLUR - 1 >= 0) sum -= cells[start + (i - BLUR - 1) * step];
        if (i >= 0) out[start + i * step] = sum / (2 * BLUR + 1);
      }
    }
    return out;
  }

  /** Contour lines from low to high density: arrays of x0, y0, x1, y1 segments in the world. */
  contours() {
    const sorted = Float32Array.from(this.cells).sort().reverse();
    let total = 0;
    for (const v of sorted) total += v;
    return MASSES.map((mass) => {
      let sum = 0,
        k = 0;
      while (k < sorted.length - 1 && sum < mass * total) sum += sorted[k++];
      return this.lines(Math.max(sorted[k], 1e-6));
    });
  }

  /** Marching squares at one height. @param {number} height */
  lines(height) {
    const { cells, columns, rows } = this;
    const found = [];
    for (let r = 0; r + 1 < rows; r++) {
      for (let c = 0; c + 1 < columns; c++) {
        const at = r * columns + c;
        const a = cells[at],
          b = cells[at + 1],
          d = cells[at + columns],
          e = cells[at + columns + 1];
        const kind =
          Number(a > height) | (Number(b > height) << 1) | (Number(e > height) << 2) | (Number(d > height) << 3);
        if (kind === 0 || kind === 15) continue;
        /** @param {number} p @param {number} q */
        const part = (p, q) => (height - p) / (q - p);
        const sides = [
          [c + part(a, b), r],
          [c + 1, r + part(b, e)],
          [c + part(d, e), r + 1],
          [c, r + part(a, d)],
        ];
        for (const [from, to] of PAIRS[kind]) found.push(...this.world(sides[from]), ...this.world(sides[to]));
      }
    }
    return Float32Array.from(found);
  }

  /** @param {number[]} given */
  world([column, row]) {
    return [this.bounds[0] + (column + 0.5) / this.perX, this.bounds[1] + (row + 0.5) / this.perY];
  }

  /** The grid as a picture in one colour, top row first. @param {number[]} given */
  picture([red, green, blue]) {
    const image = new ImageData(this.columns, this.rows);
    const most = this.cells.reduce((a, b) => Math.max(a, b), 1e-9);
    for (let r = 0; r < this.rows; r++) {
      for (let c = 0; c < this.columns; c++) {
        const alpha = Math.min(1, 1.3 * (this.cells[(this.rows - 1 - r) * this.columns + c] / most) ** 0.4);
        image.data.set([red, green, blue, alpha < 0.08 ? 0 : 255 * alpha * 0.8], 4 * (r * this.columns + c));
      }
    }
    return image;
  }
}

// Sides of a square (0 below, 1 right, 2 above, 3 left) that a contour line joins, by the corners above its height.
const PAIRS = [
  [],
  [[3, 0]],
  [[0, 1]],
  [[3, 1]],
  [[1, 2]],
  [
    [3, 0],
    [1, 2],
  ],
  [[0, 2]],
  [[3, 2]],
  [[2, 3]],
  [[2, 0]],
  [
    [0, 1],
    [2, 3],
  ],
  [[2, 1]],
  [[1, 3]],
  [[1, 0]],
  [[0, 3]],
  [],
];

/**
 * Draw the segments of each height; they fade at zooms at which the grid would become visible.
 * @param {CanvasRenderingContext2D} context @param {Float32Array[]} contours @param {Camera} camera
 * @param {AtlasTheme} theme
 */
export function drawContours(context, contours, camera, theme) {
  const nearer = camera.zoom / camera.whole;
  const strength = Math.min(1, Math.max(0, (14 - nearer) / 8));
  if (strength === 0) return;
  context.lineWidth = 1;
  context.strokeStyle = theme.contour;
  contours.forEach((segments, i) => {
    context.globalAlpha = strength * (0.28 + 0.12 * i);
    context.beginPath();
    for (let s = 0; s < segments.length; s += 4) {
      context.moveTo(camera.screenX(segments[s]), camera.screenY(segments[s + 1]));
      context.lineTo(camera.screenX(segments[s + 2]), camera.screenY(segments[s + 3]));
    }
    context.stroke();
  });
  context.globalAlpha = 1;
}
