// Marks of items: a circle for a latent, a diamond for an error, a square for a token, a box for a target or a group.

import { contextOf, element, visible } from "../dom.mjs";
import { KINDS } from "./model.mjs";

const LETTERED = 60; // links of a circuit, at most, that carry the letter of their input
const LETTERS = ["q", "k", "v"];

/**
 * Text of a token or label on one line, without characters that turn or hide what follows.
 * @param {unknown} text @param {number} most
 */
export function tokenText(text, most) {
  const plain = String(text ?? "")
    .replace(
      // biome-ignore lint/suspicious/noControlCharactersInRegex: these are what it replaces
      /[\u0000-\u0008\u000b\u000c\u000e-\u001f\u007f-\u009f\u200b-\u200f\u202a-\u202e\u2066-\u2069\ufeff\ufffe\uffff]/g,
      "\ufffd",
    )
    .replace(/[\ud800-\udbff](?![\udc00-\udfff])|(?<![\ud800-\udbff])[\udc00-\udfff]/g, "\ufffd");
  return visible(plain, most).replace(/^ /, "␣") || "∅";
}

/** @param {unknown} error */
export const failure = (error) =>
  element("p", { class: "wb-graph-failed" }, error instanceof Error ? error.message : String(error));

/**
 * Latents grow with the root of their effect.
 * @param {Item} item @param {number} largest @param {boolean} roomy
 */
export function radiusOf(item, largest, roomy) {
  if (item.kind === KINDS.TOKEN) return 4.5;
  if (item.kind === KINDS.LOGIT) return 10;
  return (roomy ? 4.5 : 2.8) + 3.4 * Math.sqrt(Math.min(1, Math.abs(item.size) / largest));
}

/** @param {GraphTheme} theme @param {number} group */
export function groupColour(theme, group) {
  return group < 0 ? null : theme.groups[group % theme.groups.length];
}

/** Width and height of an item that is a box; null of others. @param {Item} item */
export function boxOf(item) {
  if (item.kind === KINDS.LOGIT) return { width: item.wide, height: 26 };
  if (item.node < 0) return { width: Math.min(190, 24 + 7 * Math.min(24, [...item.label].length)), height: 24 };
  return null;
}

/**
 * Corners of an item that is no circle and no box, around (x, y).
 * @param {Item} item @param {number} x @param {number} y @param {number} r
 */
export function cornersOf(item, x, y, r) {
  if (item.kind === KINDS.ERROR)
    return [
      [x, y - r * 1.25],
      [x + r * 1.25, y],
      [x, y + r * 1.25],
      [x - r * 1.25, y],
    ];
  return [
    [x - r, y - r],
    [x + r, y - r],
    [x + r, y + r],
    [x - r, y + r],
  ];
}

/** Fill, line and text colour of an item: the fill has its sign, the line its group. @param {Item} item @param {GraphTheme} theme @param {string | null} group */
export function coloursOf(item, theme, group) {
  if (item.kind === KINDS.ERROR) return { fill: theme.surface, line: group ?? theme.muted, text: theme.text };
  if (item.kind === KINDS.TOKEN) return { fill: theme.text, line: group ?? theme.surface, text: theme.text };
  if (item.kind === KINDS.LOGIT) return { fill: theme.soft, line: theme.accent, text: theme.text };
  if (item.node < 0) return { fill: theme.surface, line: group ?? theme.muted, text: theme.text };
  const own = theme.roles ? (theme.roles[item.role] ?? theme.muted) : item.size < 0 ? theme.opposite : theme.accent;
  return { fill: own, line: group ?? theme.surface, text: theme.text };
}

/** @param {Item} item */
export const lineWidth = (item) =>
  item.group >= 0 ? 2.2 : boxOf(item) ? 1.6 : item.kind === KINDS.ERROR || item.pinned ? 1.4 : 0.8;

/**
 * The Bézier curve of a link at a camera: two numbers for each end and control point.
 * @param {Scene} scene @param {number} e @param {GraphCamera} camera
 */
export function curveOf({ items, links }, e, { x, y, zoom }) {
  const a = items[links.from[e]],
    b = items[links.to[e]];
  const [ax, ay, bx, by] = [a.x * zoom + x, a.y * zoom + y, b.x * zoom + x, b.y * zoom + y];
  const bend = (ay - by) * 0.45,
    out = (links.bow[e] * zoom * 1.33) / (Math.hypot(bx - ax, by - ay) || 1); // 1.33: the middle lies `bow` aside
  const [ox, oy] = [(ay - by) * out, (bx - ax) * out];
  return [ax, ay, ax + ox, ay - bend + oy, bx + ox, by + bend + oy, bx, by];
}

/** A point of a curve. @param {number[]} curve @param {number} t 0 to 1 @returns {Point} */
export function pointOf(curve, t) {
  const parts = [(1 - t) ** 3, 3 * t * (1 - t) ** 2, 3 * t ** 2 * (1 - t), t ** 3];
  const at = (/** @type {number} */ axis) => parts.reduce((sum, part, i) => sum + part * curve[2 * i + axis], 0);
  return [at(0), at(1)];
}

/** Number of a link's line in the colours of the theme: by its input, then its sign. @param {Links} links @param {number} e */
export const lineOf = (links, e) => 2 * links.via[e] + (links.weight[e] < 0 ? 1 : 0);

/**
 * The letter of its input on each link of a circuit, near its reader, where there are few.
 * @param {Scene} scene @param {GraphCamera} camera @param {GraphTheme} theme
 */
export function lettersOf(scene, camera, theme) {
  const { links } = scene,
    few = scene.isCircuit && links.from.length <= LETTERED;
  return [...(few ? links.via : [])].flatMap((via, e) => {
    const letter = LETTERS[via],
      colour = theme.lines[lineOf(links, e)][0];
    return letter ? [{ letter, at: pointOf(curveOf(scene, e, camera), 0.84), colour }] : [];
  });
}

/** @type {Map<string, { made: HTMLCanvasElement, half: number }>} */
const stamps = new Map();

/**
 * A circle as a small picture: thousands of them are drawn in a frame.
 * @param {string} fill @param {string} line @param {number} r @param {number} width @param {number} ratio
 */
function stamp(fill, line, r, width, ratio) {
  const size = Math.max(2, Math.round(2 * r)) / 2,
    key = `${fill} ${line} ${size} ${width} ${ratio}`;
  const known = stamps.get(key);
  if (known) return known;
  const made = document.createElement("canvas"),
    half = size + 2;
  made.width = made.height = Math.ceil(2 * half * ratio);
  const context = contextOf(made);
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  context.beginPath();
  context.arc(half, half, size, 0, 2 * Math.PI);
  Object.assign(context, { fillStyle: fill, strokeStyle: line, lineWidth: width });
  context.fill();
  context.stroke();
  const found = { made, half };
  stamps.set(key, found);
  return found;
}

/**
 * @param {CanvasRenderingContext2D} context @param {Item} item @param {number} x @param {number} y @param {number} r
 * @param {GraphTheme} theme @param {number} ratio
 */
export function drawMark(context, item, x, y, r, theme, ratio) {
  const { fill, line, text: colour } = coloursOf(item, theme, groupColour(theme, item.group)),
    box = boxOf(item);
  if (!box && item.kind === KINDS.FEATURE) {
    const pin = item.pinned && item.group < 0;
    const { made, half } = stamp(fill, pin ? theme.text : line, r, lineWidth(item), ratio);
    context.drawImage(made, x - half, y - half, made.width / ratio, made.height / ratio);
    return;
  }
  context.beginPath();
  if (box) context.roundRect(x - box.width / 2, y - box.height / 2, box.width, box.height, 7);
  else cornersOf(item, x, y, r).forEach(([px, py], i) => (i ? context.lineTo(px, py) : context.moveTo(px, py)));
  context.closePath();
  context.fillStyle = fill;
  context.fill();
  context.strokeStyle = item.pinned && !box ? theme.text : line;
  context.lineWidth = lineWidth(item);
  context.stroke();
  if (!box) return;
  context.font = `600 12px ${theme.font}`;
  context.fillStyle = colour;
  context.textAlign = "center";
  context.textBaseline = "middle";
  context.fillText(
    tokenText(item.label, item.node < 0 ? 24 : Math.max(2, Math.floor(item.wide / 7.5))),
    x,
    y + 0.5,
    box.width - 12,
  );
  context.textAlign = "left";
}

/**
 * Text that reads on lines.
 * @param {CanvasRenderingContext2D} context @param {string} text @param {number} x @param {number} y
 * @param {string} colour @param {string} surface
 */
export function halo(context, text, x, y, colour, surface) {
  context.textBaseline = "middle";
  context.lineJoin = "round";
  context.lineWidth = 3.5;
  context.strokeStyle = surface;
  context.strokeText(text, x, y);
  context.fillStyle = colour;
  context.fillText(text, x, y);
}
