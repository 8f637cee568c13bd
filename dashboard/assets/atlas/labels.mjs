// Labels of regions that never overlap and never flicker. Each label has one fixed interval of zoom in which it is shown.
// It starts where the label overlaps none of higher priority (coarser regions first), and ends where its region outgrows
// the screen and finer regions replace it. Panning changes nothing.

const FONTS = ["600 14px", "500 12px", "600 11px"];
const FAMILY = 'system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", Arial, sans-serif';
const LINE = 1.25,
  WIDEST = 170,
  GAP = 6;
const SMALLEST = 46,
  LARGEST = 1500; // a region's label is shown while its size in pixels lies between these
const MOST = 1200;

/** @param {number} level */
const fontOf = (level) => `${FONTS[Math.min(level, FONTS.length - 1)]} ${FAMILY}`;
/** @param {number} level */
const sizeOf = (level) => [14, 12, 11][Math.min(level, 2)];

/**
 * Labels with their lines, size and interval of zoom `[from, to)` in pixels per unit; those with an empty interval
 * are dropped.
 * @param {Region[]} regions @param {CanvasRenderingContext2D} context
 */
export function placed(regions, context) {
  const parents = new Set(regions.map((region) => region.parent));
  const ordered = regions
    .filter((region) => region.label)
    .sort((a, b) => a.level - b.level || b.priority - a.priority || a.region - b.region)
    .slice(0, MOST);
  /** @type {MapLabel[]} */
  const labels = [];
  for (const region of ordered) {
    const label = { region, ...box(region, context), x: region.x, y: region.y, from: 0, to: 0 };
    const extent = Math.max(region.x_max - region.x_min, region.y_max - region.y_min) || 1e-9;
    label.to = parents.has(region.region) ? LARGEST / extent : Infinity;
    label.from = clearOf(labels, label, region.level === 0 ? 0 : SMALLEST / extent);
    if (label.from < label.to) labels.push(label);
  }
  return labels;
}

/**
 * The least zoom from which on `label` overlaps none of `others` while they are shown.
 * @param {MapLabel[]} others @param {MapLabel} label @param {number} least
 */
function clearOf(others, label, least) {
  let from = least;
  for (const other of others) {
    const wide = ((label.width + other.width) / 2 + GAP) / Math.abs(label.x - other.x);
    const high = ((label.height + other.height) / 2 + GAP / 2) / Math.abs(label.y - other.y);
    const end = Math.min(wide, high, other.to); // Infinity / 0 is Infinity: two labels at one position always overlap
    if (end > other.from && end > from) from = end;
  }
  return from;
}

/** @param {Region} region @param {CanvasRenderingContext2D} context */
function box(region, context) {
  context.font = fontOf(region.level);
  const lines = wrap(region.label, context);
  const width = Math.max(...lines.map((line) => context.measureText(line).width));
  return { lines, width, height: lines.length * sizeOf(region.level) * LINE };
}

/**
 * At most two lines of at most `WIDEST` pixels, cut between grapheme clusters.
 * @param {string} text @param {CanvasRenderingContext2D} context
 */
function wrap(text, context) {
  const clean = text.replace(/\r\n|\r|\n/g, "↵").replace(/\t/g, "⇥");
  /** @param {string} line */
  const fits = (line) => context.measureText(line).width <= WIDEST;
  if (fits(clean)) return [clean];
  const words = clean.split(/(?<=[\s·,/])/);
  let first = "";
  while (words.length && fits(first + words[0])) first += words.shift();
  if (!first.trim()) return [cut(clean, fits)];
  const rest = words.join("").trim();
  return [first.trim(), fits(rest) ? rest : cut(rest, fits)];
}

/** @param {string} text @param {(line: string) => boolean} fits */
function cut(text, fits) {
  const characters = Intl.Segmenter
    ? Array.from(new Intl.Segmenter().segment(text.slice(0, 400)), (part) => part.segment)
    : Array.from(text.slice(0, 400));
  let low = 0,
    high = characters.length;
  while (low < high) {
    const middle = (low + high + 1) >> 1;
    if (fits(`${characters.slice(0, middle).join("")}…`)) low = middle;
    else high = middle - 1;
  }
  return `${characters.slice(0, low).join("")}…`;
}

/** Labels shown at this view, with their positions on the screen. @param {MapLabel[]} labels @param {Camera} camera */
export function shownLabels(labels, camera) {
  const shown = [];
  for (const label of labels) {
    if (camera.zoom < label.from || camera.zoom >= label.to) continue;
    const x = camera.screenX(label.x),
      y = camera.screenY(label.y);
    if (x < -label.width / 2 || x > camera.width + label.width / 2 || y < -20 || y > camera.height + 20) continue;
    shown.push({ label, x, y });
  }
  return shown;
}

/**
 * Text with a halo in the background's colour; the writing direction is that of each label.
 * @param {CanvasRenderingContext2D} context @param {ShownLabel[]} shown @param {AtlasTheme} theme
 */
export function drawLabels(context, shown, theme) {
  context.textAlign = "center";
  context.textBaseline = "middle";
  context.lineJoin = "round";
  context.lineWidth = 3.5;
  context.strokeStyle = theme.halo;
  context.fillStyle = theme.text;
  for (const { label, x, y } of shown) {
    const { level } = label.region;
    context.font = fontOf(level);
    const step = sizeOf(level) * LINE;
    label.lines.forEach((line, i) => {
      const at = y + (i - (label.lines.length - 1) / 2) * step;
      const isolated = `\u2068${line}\u2069`;
      context.strokeText(isolated, x, at);
      context.fillText(isolated, x, at);
    });
  }
}
