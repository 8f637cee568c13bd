// The picture of routes: the words of a prompt as a line, arcs from word to word, stations below, the answer at the end.
// Where the line is wider than the page, words that no arc touches are left out; on a phone the line runs downwards.

import { contextOf, svg } from "../dom.mjs";
import { tokenText } from "../graph/marks.mjs";

const WIDEST = 11; // pixels of the strongest arc
const LINE = 15; // pixels from a line of a label to the next
const WIDE = 620; // pixels, below which the line runs downwards
const LONG = 24; // words that a line that runs downwards shows at most, unless arcs touch them
const WORDS = 3;
const FONTS = { word: "500 15px var(--wb-mono)", label: "600 12.5px var(--wb-font)", small: "11.5px var(--wb-font)" };

/** A word on one line, without characters that turn or hide what follows. @param {string} text @param {number} [most] */
export const wordText = (text, most = 22) => tokenText(text.trim() || text, most);

/** @param {string[]} words @param {number} [most] */
export const listed = (words, most = WORDS) =>
  words
    .slice(0, most)
    .map((word) => wordText(word, 16))
    .join(", ");

/** Layers in words. @param {{ first: number, last: number }} layers */
export const layersOf = ({ first, last }) => (first === last ? `layer ${first}` : `layers ${first}–${last}`);

/** A number of nats. @param {number} value */
export const nats = (value) => value.toFixed(Math.abs(value) < 0.095 ? 2 : 1).replace("-", "−");

/** @param {number} p */
export const chance = (p) => (p < 0.001 ? "<0.1 %" : `${(100 * p).toFixed(p < 0.095 ? 1 : 0)} %`);

/** The swap of an arc that was stored or asked for last. @param {RoutesValue} value @param {WordRoute} route */
export const swapOf = ({ swaps }, { source, destination }) =>
  swaps.filter((swap) => swap.source === source && swap.destination === destination).at(-1);

/** @param {RouteSwap} swap */
export const flips = ({ says, counterpart }) => says[0]?.text === counterpart;

/** @type {CanvasRenderingContext2D | undefined} */
let ruler;
/** Length of a text in pixels. @param {string} text @param {keyof typeof FONTS} font */
function long(text, font) {
  ruler ??= contextOf(document.createElement("canvas"));
  const styles = getComputedStyle(document.documentElement);
  ruler.font = FONTS[font].replace(/var\((.*)\)/, (_, name) => styles.getPropertyValue(name));
  return ruler.measureText(text).width;
}

/**
 * The picture of some routes in a width, `cut` of them drawn as cut.
 * @param {RoutesValue} value @param {WordRoute[]} routes @param {number} width @param {WordRoute | null} cut
 * @returns {Drawing}
 */
export function draw(value, routes, width, cut) {
  const touched = new Set(routes.flatMap(({ source, destination }) => [source, destination])),
    says = cut?.after[0] ?? { text: value.answer, probability: value.probability },
    answer = `${wordText(says.text)} ${chance(says.probability)}`,
    room = width - long(answer, "word") - 64;
  let parts = line(value, null),
    upright = width < WIDE;
  if (!upright && endOf(parts) > room) {
    parts = line(value, touched);
    upright = endOf(parts) > room;
  }
  if (upright) parts = column(line(value, value.words.length > LONG ? touched : null), width);
  const arcs = lay(value, routes, parts, upright, width);
  const most = Math.max(0.01, ...routes.map(({ effect }) => Math.abs(effect))),
    total = Math.max(0.01, ...value.words.map((word) => Math.abs(word.total))),
    deep = upright ? 0 : Math.max(24, ...arcs.map((arc) => arc.top + LINE * arc.lines.length + 6)),
    side = upright ? Math.max(...parts.map((part) => partWide(part))) + 10 : 0,
    end = endOf(parts),
    rows = upright ? [] : stationRows(parts, width),
    high = upright ? end + 44 : deep + 40 + 34 * Math.max(0, ...rows.map((row) => row + 1));
  const picture = svg(
    "svg",
    { width, height: high, viewBox: `0 0 ${width} ${high}`, class: "wb-arcs", role: "group", "aria-label": "Routes" },
    ...[...arcs]
      .sort((a, b) => Math.abs(a.route.effect) - Math.abs(b.route.effect))
      .map((arc) => arcOf(arc, value, upright ? side : deep, upright, most, arc.route === cut)),
    ...parts.map((part, i) => wordOf(part, value, deep, upright, total, rows[i] ?? 0, width)),
    answerOf(answer, end, deep, upright, cut !== null),
  );
  return { picture, upright };
}

/** @param {LinePart[]} parts */
const endOf = (parts) => Math.max(0, ...parts.map(({ at, wide }) => at + wide));

/** The words beside each other; with `touched`, only these and each run of others as one part. @param {RoutesValue} value @param {Set<number> | null} touched @returns {LinePart[]} */
function line({ words }, touched) {
  /** @type {LinePart[]} */
  const parts = [];
  let at = 0,
    left = 0;
  const add = (/** @type {number} */ word, /** @type {string} */ text, /** @type {RouteStation[]} */ stations) => {
    const wide = long(text, "word") + 14;
    parts.push({ word, text, at, wide, stations });
    at += wide + 8;
  };
  for (const [i, word] of words.entries()) {
    const out = touched && !touched.has(i) && i !== words.length - 1;
    if (out) left++;
    if (left && (!out || i === words.length - 1)) add(-1, left === 1 ? "…" : `… ${left} …`, []);
    if (out) continue;
    left = 0;
    add(i, wordText(word.text), shownStations(word));
  }
  return parts;
}

/** Stations that say something, the strongest first. @param {RouteWord} word */
const shownStations = ({ stations }) =>
  [...stations]
    .filter(({ words }) => words.length)
    .sort((a, b) => Math.abs(b.effect) - Math.abs(a.effect))
    .slice(0, 1);

/** The words below each other. @param {LinePart[]} parts @param {number} width @returns {LinePart[]} */
function column(parts, width) {
  let at = 0;
  return parts.map((part) => {
    const letters = Math.floor((width * 0.5) / 9.1),
      made = { ...part, text: tokenText(part.text, letters), at, wide: part.stations.length ? 40 : 26 };
    at += made.wide + 4;
    return made;
  });
}

/** Pixels of an upright part across the line. @param {LinePart} part */
const partWide = ({ text, stations }) =>
  Math.max(long(text, "word") + 14, ...stations.map((station) => long(stationText(station), "small") + 8));

/** @param {RouteStation} station */
const stationText = (station) => `${listed(station.words, 2)} · ${station.first}–${station.last}`;

/** Rows of stations below the line, so that none covers another. @param {LinePart[]} parts @param {number} width */
function stationRows(parts, width) {
  /** @type {number[]} */
  const ends = [];
  return parts.map((part) => {
    if (!part.stations.length) return -1;
    const wide = stationWide(part),
      x = stationAt(part, width),
      free = ends.findIndex((end) => end < x - 8),
      row = free < 0 ? ends.length : free;
    ends[row] = x + wide;
    return row;
  });
}

/** @param {LinePart} part */
const stationWide = ({ stations: [station] }) => Math.max(long(`+ ${listed(station.words)}`, "small"), 84);

/** @param {LinePart} part @param {number} width */
const stationAt = (part, width) =>
  Math.max(0, Math.min(part.at + part.wide / 2 - stationWide(part) / 2, width - stationWide(part)));

/**
 * Ends, tops and labels of arcs: at a word side by side so that none crosses another, short ones below long ones.
 * @param {RoutesValue} value @param {WordRoute[]} routes @param {LinePart[]} parts @param {boolean} upright
 * @param {number} width
 */
function lay(value, routes, parts, upright, width) {
  const span = (/** @type {WordRoute} */ { source, destination }) => destination - source,
    place = new Map(parts.map((part) => [part.word, part]));
  /** @param {WordRoute} route @param {number} word */
  const end = (route, word) => {
    const part = /** @type {LinePart} */ (place.get(word)),
      into = routes.filter((one) => one.destination === word).sort((a, b) => span(a) - span(b)),
      out = routes.filter((one) => one.source === word).sort((a, b) => span(b) - span(a)),
      ends = [...into, ...out],
      wide = upright ? 24 : part.wide;
    return part.at + wide * (0.15 + (0.7 * (ends.indexOf(route) + 0.5)) / ends.length);
  };
  /** @type {LaidArc[]} */
  const laid = routes.map((route, i) => {
    const swap = swapOf(value, route),
      carried = route.carried?.words.length ? listed(route.carried.words) : "",
      effect = `${nats(route.effect)} nats`,
      detail = route.layers ? `${layersOf(route.layers)} · ${effect}` : effect,
      other = swap && flips(swap) ? `⇄ ${wordText(swap.instead)}: ${wordText(swap.counterpart)}` : "",
      lines = upright ? [] : [carried, detail, other].filter(Boolean),
      from = end(route, route.source),
      to = end(route, route.destination),
      wide = upright ? 20 : Math.max(...lines.map((text, at) => long(text, at ? "small" : "label"))) + 6,
      middle = upright ? (from + to) / 2 : Math.max(wide / 2, Math.min((from + to) / 2, width - wide / 2));
    return { route, number: i + 1, from, to, top: 0, lines, middle, wide };
  });
  /** @type {LaidArc[]} */
  const below = [];
  for (const arc of [...laid].sort((a, b) => a.to - a.from - (b.to - b.from))) {
    const reach = (/** @type {LaidArc} */ one) => [
      Math.min(one.from, one.middle - one.wide / 2) - 3,
      Math.max(one.to, one.middle + one.wide / 2) + 3,
    ];
    const [left, right] = reach(arc),
      under = below.filter((one) => reach(one)[0] < right && reach(one)[1] > left);
    arc.top = Math.max(30, ...under.map((one) => one.top + (upright ? 24 : LINE * one.lines.length + 14)));
    below.push(arc);
  }
  const most = Math.max(0, ...laid.map(({ top }) => top)),
    room = width * 0.5 - 40;
  if (upright && most > room) for (const arc of laid) arc.top *= room / most;
  return laid;
}

/** @param {LaidArc} arc @param {RoutesValue} value @param {number} base @param {boolean} upright @param {number} most @param {boolean} isCut */
function arcOf(arc, value, base, upright, most, isCut) {
  const { route, number, from, to, top, lines, middle } = arc,
    wide = 1.5 + (WIDEST - 1.5) * (Math.abs(route.effect) / most),
    head = 4 + wide / 2,
    bend = (top + wide / 2) / 0.75;
  /** A point: along the line, and above it. @param {number} u @param {number} v */
  const at = (u, v) =>
    upright ? `${(base + v).toFixed(1)} ${u.toFixed(1)}` : `${u.toFixed(1)} ${(base - v).toFixed(1)}`;
  const curve = `M${at(from, 0)}C${at(from, bend)} ${at(to, bend)} ${at(to, head)}`,
    [x, y] = upright ? [base + top + 4, middle] : [middle, base - top - wide / 2 - 5 - LINE * (lines.length - 1)],
    look = `wb-arc${route.effect < 0 ? " wb-arc-against" : ""}${isCut ? " wb-arc-cut" : ""}`;
  const label = upright
    ? [
        svg("circle", { cx: x, cy: y, r: 9, class: "wb-arc-number" }),
        svg("text", { x, y: y + 4, "text-anchor": "middle", class: "wb-arc-small" }, `${number}`),
      ]
    : lines.map((text, i) =>
        svg("text", { x, y: y + LINE * i, "text-anchor": "middle", class: look2(route, i) }, text),
      );
  return svg(
    "g",
    {
      class: look,
      role: "button",
      tabindex: -1,
      "data-item": `${route.source}-${route.destination}`,
      "aria-label": spoken(value, route),
    },
    svg("path", { d: curve, class: "wb-arc-hit" }),
    svg("path", { d: curve, class: "wb-arc-line", "stroke-width": wide }),
    svg("path", { d: `M${at(to - head, head)}L${at(to + head, head)}L${at(to, 0)}Z`, class: "wb-arc-head" }),
    ...label,
  );
}

/** The first line of a label is what an arc carries. @param {WordRoute} route @param {number} i */
const look2 = (route, i) => (i === 0 && route.carried?.words.length ? "wb-arc-label" : "wb-arc-small");

/** A route in words. @param {RoutesValue} value @param {WordRoute} route */
export function spoken(value, { source, destination, effect, layers, carried }) {
  const [from, to] = [source, destination].map((i) => wordText(value.words[i].text));
  return [
    `${from} tells ${to}`,
    `${nats(effect)} nats`,
    layers && layersOf(layers).replace("–", " to "),
    carried?.words.length ? `carries ${listed(carried.words)}` : "",
  ]
    .filter(Boolean)
    .join(", ");
}

/**
 * @param {LinePart} part @param {RoutesValue} value @param {number} base @param {boolean} upright @param {number} total
 * @param {number} row @param {number} width
 */
function wordOf(part, value, base, upright, total, row, width) {
  const [x, y] = upright ? [0, part.at] : [part.at, base + 3],
    wide = upright ? long(part.text, "word") + 14 : part.wide,
    text = svg("text", { x: x + 7, y: y + 17, class: "wb-arc-text" }, part.text);
  if (part.word < 0) return svg("g", { class: "wb-arc-left" }, text);
  const word = value.words[part.word],
    shade = (0.06 + 0.36 * (Math.abs(word.total) / total)).toFixed(3),
    look = `wb-arc-word${word.total < 0 ? " wb-arc-against" : ""}`,
    [station] = part.stations,
    under = station ? (upright ? [[stationText(station), x + 2, y + 36]] : below(station)) : [];
  /** @param {RouteStation} station @returns {[string, number, number][]} */
  function below(station) {
    const middle = stationAt(part, width) + stationWide(part) / 2,
      top = y + 42 + 34 * row;
    return [
      [`+ ${listed(station.words)}`, middle, top],
      [layersOf(station), middle, top + 13],
    ];
  }
  return svg(
    "g",
    {
      class: look,
      role: "button",
      tabindex: -1,
      "data-item": `${part.word}`,
      "aria-label": `${wordText(word.text)}, ${nats(word.total)} nats in all`,
    },
    svg("rect", { x, y, width: wide, height: 25, rx: 5, "fill-opacity": shade }),
    text,
    ...(station && !upright
      ? [svg("path", { d: `M${x + wide / 2} ${y + 27}V${y + 30 + 34 * row}`, class: "wb-arc-tick" })]
      : []),
    ...under.map(([said, u, v]) =>
      svg(
        "text",
        {
          x: u,
          y: v,
          "text-anchor": upright ? "start" : "middle",
          class: `wb-arc-small${station.restates ? " wb-arc-restates" : ""}`,
        },
        String(said),
      ),
    ),
  );
}

/** @param {string} answer @param {number} end @param {number} base @param {boolean} upright @param {boolean} isCut */
function answerOf(answer, end, base, upright, isCut) {
  const [x, y] = upright ? [0, end + 10] : [end + 8, base + 3],
    wide = long(answer, "word") + 16;
  return svg(
    "g",
    { class: `wb-arc-answer${isCut ? " wb-arc-cut" : ""}` },
    svg("text", { x: x + 2, y: y + 17, class: "wb-arc-text" }, "→"),
    svg("rect", { x: x + 22, y, width: wide, height: 25, rx: 5 }),
    svg("text", { x: x + 30, y: y + 17, class: "wb-arc-text" }, answer),
  );
}

const KEPT = [
  "fill",
  "fill-opacity",
  "stroke",
  "stroke-width",
  "stroke-opacity",
  "stroke-dasharray",
  "opacity",
  "font",
];

/** The picture as a file, with the colours that it has now. @param {SVGElement} picture */
export function asFile(picture) {
  const copy = /** @type {SVGElement} */ (picture.cloneNode(true)),
    [seen, made] = [picture, copy].map((root) => [root, ...root.querySelectorAll("*")]);
  for (const [i, part] of made.entries()) {
    const styles = getComputedStyle(seen[i]);
    const style = KEPT.map((name) => `${name}:${styles.getPropertyValue(name).replace(/"/g, "'")}`).join(";");
    for (const name of ["class", "role", "tabindex", "data-item", "aria-label", "aria-expanded"])
      part.removeAttribute(name);
    part.setAttribute("style", style);
  }
  copy.setAttribute(
    "style",
    `background:${getComputedStyle(document.documentElement).getPropertyValue("--wb-surface")}`,
  );
  return new Blob([new XMLSerializer().serializeToString(copy)], { type: "image/svg+xml" });
}
