// Appearance of points: every point has one byte, an index into a table of 256 colours.
//
//   0         no value, no region        1..12     categories
//   16..126   a scale, low to high       +128      the same, dimmed        255   not drawn

const NONE = 0,
  SCALE = 16,
  SCALE_STEPS = 111,
  CATEGORIES = 12;
export const DIMMED = 128,
  HIDDEN = 255;

/** "#2f74d0" -> [47, 116, 208] @param {string} hex */
export function rgb(hex) {
  const v = parseInt(hex.slice(1), 16);
  return [v >> 16, (v >> 8) & 255, v & 255];
}

/** @param {number[]} a @param {number[]} b @param {number} t */
const mix = (a, b, t) => a.map((v, i) => v + (b[i] - v) * t);

/** Colour at `t` in 0..1 of stops [[t, "#rrggbb"], ...]. @param {Stops} stops @param {number} t */
export function along(stops, t) {
  const next = stops.findIndex(([at]) => at >= t);
  if (next < 0) return rgb(stops[stops.length - 1][1]);
  if (next === 0) return rgb(stops[0][1]);
  const [t0, c0] = stops[next - 1],
    [t1, c1] = stops[next];
  return mix(rgb(c0), rgb(c1), (t - t0) / (t1 - t0 || 1));
}

/**
 * The table: 256 x (red, green, blue 0..255, alpha 0..1) for a theme and the opacity of a plain point.
 * @param {AtlasTheme} theme @param {number} opacity
 */
export function table(theme, opacity) {
  const colours = new Float32Array(256 * 4);
  /** @param {number} code @param {number[]} colour @param {number} alpha */
  const set = (code, colour, alpha) => {
    colours.set([...colour, alpha], 4 * code);
    colours.set([...mix(colour, rgb(theme.noise), 0.8), 0.38 * alpha + 0.04], 4 * (code + DIMMED));
  };
  set(NONE, rgb(theme.noise), 0.6 * opacity);
  theme.categories.slice(0, CATEGORIES).forEach((colour, i) => set(1 + i, rgb(colour), opacity));
  for (let i = 0; i < SCALE_STEPS; i++) set(SCALE + i, along(theme.scale, i / (SCALE_STEPS - 1)), opacity);
  colours.fill(0, 4 * HIDDEN);
  return colours;
}

/**
 * Plain points: radius in CSS pixels and opacity. Fewer or nearer points are larger and denser; both grow steadily.
 * @param {number} n @param {number} nearer
 */
export function plain(n, nearer) {
  const start = Math.min(Math.max(420 / Math.sqrt(Math.max(n, 1)), 1.1), 7) / 2;
  const radius = Math.min(start * nearer ** 0.42, 8);
  const opacity = Math.min(0.92, (n > 300000 ? 0.5 : n > 60000 ? 0.66 : 0.82) * nearer ** 0.2);
  return { radius, opacity };
}

/**
 * Low and high ends of a scale: the 1st and 99th percentile of a sample, so that outliers do not set them.
 * @param {ArrayLike<number>} values @returns {Ends}
 */
export function ends(values) {
  const step = Math.max(1, Math.floor(values.length / 20000));
  const sample = [];
  for (let i = 0; i < values.length; i += step) if (Number.isFinite(values[i])) sample.push(values[i]);
  if (!sample.length) return [0, 1];
  const sorted = Float64Array.from(sample).sort();
  /** @param {number} q */
  const at = (q) => sorted[Math.round(q * (sorted.length - 1))];
  return at(0.01) < at(0.99) ? [at(0.01), at(0.99)] : [sorted[0], sorted[sorted.length - 1]];
}

/** Codes of numbers on a scale. @param {ArrayLike<number>} values @param {Ends} given */
export function scaleCodes(values, [low, high]) {
  const codes = new Uint8Array(values.length);
  const per = (SCALE_STEPS - 1) / (high - low || 1);
  for (let i = 0; i < values.length; i++) {
    const t = (values[i] - low) * per;
    codes[i] = Number.isNaN(t) ? NONE : SCALE + (t < 0 ? 0 : t > SCALE_STEPS - 1 ? SCALE_STEPS - 1 : t + 0.5);
  }
  return codes;
}

/**
 * Codes of categories: number 0 is "none", number k has colour `slots[k]` (0 = the colour of none).
 * @param {ArrayLike<number>} numbers @param {number[]} slots
 */
export function categoryCodes(numbers, slots) {
  const codes = new Uint8Array(numbers.length);
  for (let i = 0; i < numbers.length; i++) codes[i] = slots[numbers[i]];
  return codes;
}
