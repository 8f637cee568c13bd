// Points painted by the CPU, for machines with software WebGL: there a point drawn by WebGL costs about a microsecond of
// set-up, a painted one some nanoseconds. The order of points does not matter. Each adds its weight -ln(1 - alpha), and
// its colour times that weight, to the pixels that it covers; a pixel shows the mean colour with alpha 1 - exp(-weight).

import { DIMMED, SIZE_STEPS, sizeFactor } from "./looks.mjs";

const STEPS = 1024,
  HEAVIEST = 8;
const ALPHA = Float32Array.from({ length: STEPS + 1 }, (_, i) => 1 - Math.exp((-HEAVIEST * i) / STEPS));

export class Pixels {
  resize(width, height) {
    if (width === this.width && height === this.height) return;
    this.width = width;
    this.height = height;
    this.sums = new Float32Array(width * height * 4);
    this.image = new Uint32Array(width * height);
    this.bytes = new Uint8Array(this.image.buffer);
  }

  /** Add points to the picture. `view`: scale and offset to device pixels; `every`: use every n-th point only. */
  add(points, colours, view, radius, { every = 1, emphasis = 1, grid = null, box = null } = {}) {
    const inks = inkOf(colours, every, emphasis);
    const stamps = stampsOf(radius, this.width, points.sizes !== null);
    if (!grid) return this.run(points, null, 0, points.codes.length, every, inks, view, stamps);
    grid.runs(...box, (from, to) => this.run(points, grid.order, from, to, every, inks, view, stamps));
  }

  run({ xy, codes, sizes }, order, from, to, every, inks, view, stamps) {
    const { sums, width, height } = this;
    const plain = stamps[0];
    const [sx, sy, ox, oy] = view;
    const edge = stamps[stamps.length - 1].edge;
    for (let k = from; k < to; k += every) {
      const i = order ? order[k] : k;
      const px = xy[2 * i] * sx + ox,
        py = xy[2 * i + 1] * sy + oy;
      if (!(px >= edge && px < width - edge && py >= edge && py < height - edge)) continue;
      const ink = codes[i] * 4,
        weight = inks[ink + 3];
      if (weight === 0) continue;
      const { offsets, cover } = sizes ? stamps[sizes[i]] : plain;
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

  /** The picture, premultiplied RGBA; the sums are empty afterwards. */
  develop() {
    const { sums, image } = this;
    const per = STEPS / HEAVIEST;
    for (let p = 0, s = 0; p < image.length; p++, s += 4) {
      const weight = sums[s + 3];
      if (weight === 0) {
        image[p] = 0;
        continue;
      }
      const alpha = weight >= HEAVIEST ? 1 : ALPHA[(weight * per) | 0];
      const f = alpha / weight;
      image[p] = ((alpha * 255) << 24) | ((sums[s + 2] * f) << 16) | ((sums[s + 1] * f) << 8) | (sums[s] * f);
      sums[s] = sums[s + 1] = sums[s + 2] = sums[s + 3] = 0;
    }
    return this.bytes;
  }
}

/** Colour times weight, and weight, of each code. Thinned points also count for the omitted; plain ones can outweigh dimmed. */
function inkOf(colours, every, emphasis) {
  const inks = new Float32Array(colours.length);
  for (let c = 0; c < colours.length; c += 4) {
    const alpha = Math.min(colours[c + 3], 0.97);
    const weight = -Math.log(1 - alpha) * every * (c < 4 * DIMMED ? emphasis : 1);
    for (let j = 0; j < 3; j++) inks[c + j] = colours[c + j] * weight;
    inks[c + 3] = weight;
  }
  return inks;
}

const kept = { key: "", stamps: null };

/** Pixels that a point covers, per size step: offsets in the picture and the covered fraction of each pixel. */
function stampsOf(radius, width, sized) {
  const key = `${radius.toFixed(3)} ${width} ${sized}`;
  if (kept.key === key) return kept.stamps;
  const factors = sized ? Array.from({ length: SIZE_STEPS }, (_, i) => sizeFactor(i)) : [1];
  kept.key = key;
  kept.stamps = factors.map((factor) => stamp(radius * factor, width));
  return kept.stamps;
}

function stamp(radius, width) {
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
