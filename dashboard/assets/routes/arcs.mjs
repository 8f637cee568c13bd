// The picture of routes: the words of a prompt as a line, arcs from word to word, stations below, the answer at the end.

import { contextOf, short, svg } from "../dom.mjs";
import { tokenText } from "../graph/marks.mjs";
import { percent } from "../prompt/draw.mjs";

const WIDEST = 11; // pixels of the strongest arc
const LINE = 15; // pixels from a line of a label to the next
const GAP = [10, 90]; // pixels between two words
const NARROW = 420; // pixels of words, below which stations are left to what is chosen
const FONTS = { word: "500 15px var(--wb-mono)", label: "600 12.5px var(--wb-font)", small: "11.5px var(--wb-font)" };

/** A word on one line, without characters that turn or hide what follows. @param {string} text @param {number} [most] */
export const wordText = (text, most = 22) => tokenText(text.trim() || text, most);

/** @param {string[]} words @param {number} [most] */
export const listed = (words, most = 3) => Array.from(words.slice(0, most), (word) => wordText(word, 16)).join(", ");

/** @param {{ first: number, last: number }} layers */
export const layersOf = ({ first, last }) => (first === last ? `layer ${first}` : `layers ${first} to ${last}`);

/** The key of a route: its ends, then earlier occurrences of its source that are cut with it. @param {WordRoute} route */
export const keyOf = ({ source, destination, with_words: more }) => [source, destination, ...more].join("-");

/** The swaps of an edge, the last one first. @param {RoutesValue} value @param {WordRoute} route */
export const swapsOf = ({ swaps }, { source, destination }) =>
  swaps.filter((swap) => swap.source === source && swap.destination === destination).reverse();

const ruler = contextOf(document.createElement("canvas")),
  styles = getComputedStyle(document.documentElement);
/** Length of a text in pixels. @param {string} text @param {keyof typeof FONTS} font */
function long(text, font) {
  ruler.font = FONTS[font].replace(/var\((.*)\)/, (_, name) => styles.getPropertyValue(name));
  return ruler.measureText(text).width;
}

/**
 * Draw some routes in a width, one of them as cut. Where the words do not fit, those far from arcs are left out; where
 * the others do not fit either, the picture is wider.
 * @param {RoutesValue} value @param {WordRoute[]} routes @param {number} width @param {WordRoute | null} cut
 */
export function draw(value, routes, width, cut) {
  const said = cut?.after[0] ?? { text: value.answer, probability: value.probability },
    answer = `${wordText(said.text)} ${percent(said.probability)}`,
    tail = long(answer, "word") + 52,
    parts = line(value, routes, width - tail),
    end = endOf(parts),
    wide = Math.max(end + tail, ...parts.map(({ at, slot }) => at + slot)),
    arcs = lay(value, routes, parts, wide),
    base = Math.max(24, ...arcs.map(({ top, lines }) => top + LINE * lines.length + 8)),
    high = base + (parts.some(({ station }) => station) ? 64 : 32),
    most = Math.max(0.01, ...routes.map(({ effect }) => Math.abs(effect))),
    total = Math.max(0.01, ...value.words.map((word) => Math.abs(word.total)));
  const box = { x: end + 28, y: base + 3, width: tail - 30, height: 25, rx: 5 },
    given = { width: wide, height: high, viewBox: `0 0 ${wide} ${high}`, class: "wb-arcs", role: "group" };
  return svg(
    "svg",
    { ...given, "aria-label": "Words, and routes between them" },
    ...arcs.sort((a, b) => b.top - a.top).map((arc) => arcOf(arc, value, base, most, arc.route === cut)),
    ...parts.map((part) => wordOf(part, value, base, total)),
    svg(
      "g",
      { class: cut ? "wb-arc-answer wb-arc-cut" : "wb-arc-answer" },
      svg("rect", box),
      ...["→", answer].map((text, i) => svg("text", { x: end + 8 + 28 * i, y: base + 20, class: "wb-arc-text" }, text)),
    ),
  );
}

/** Where the last word ends. @param {LinePart[]} parts */
const endOf = (parts) => Math.max(0, ...parts.map(({ at, slot, wide }) => at + (slot + wide) / 2));

/** The words beside each other: all, or as many near the ends of routes as fit. @param {RoutesValue} value @param {WordRoute[]} routes @param {number} room */
function line({ words }, routes, room) {
  const ends = [...routes.flatMap((route) => keyOf(route).split("-").map(Number)), words.length - 1],
    far = words.map((_, i) => Math.min(...ends.map((end) => Math.abs(end - i)))),
    steps = [...new Set(far)].sort((a, b) => b - a);
  const of = (/** @type {number} */ most) => {
    /** @type {LinePart[]} */
    const parts = [];
    for (const [i, word] of words.entries()) {
      const left = far[i] > most;
      if (left && parts.at(-1)?.word === -1) continue;
      const station = left || room < NARROW ? undefined : word.stations.find((one) => one.words.length),
        text = left ? "…" : wordText(word.text),
        crowd = ends.filter((end) => end === i).length,
        wide = Math.max(long(text, "word") + 14, 13 * crowd),
        slot = Math.max(wide, station ? long(`+ ${listed(station.words)}`, "small") : 0);
      parts.push({ word: left ? -1 : i, text, wide, slot, station, at: 0 });
    }
    const free = (room - parts.reduce((sum, { slot }) => sum + slot, 0)) / Math.max(1, parts.length - 1),
      gap = Math.min(GAP[1], Math.max(GAP[0], free));
    for (const [i, part] of parts.entries()) part.at = i && parts[i - 1].at + parts[i - 1].slot + gap;
    return parts;
  };
  return of(steps.find((most) => endOf(of(most)) <= room) ?? 0);
}

/** Ends, tops and labels of arcs: at a word side by side so that none crosses another, short ones below long ones. @param {RoutesValue} value @param {WordRoute[]} routes @param {LinePart[]} parts @param {number} width */
function lay(value, routes, parts, width) {
  const span = (/** @type {WordRoute} */ { source, destination }) => destination - source;
  const end = (/** @type {WordRoute} */ route, /** @type {number} */ word) => {
    const { at, slot, wide } = /** @type {LinePart} */ (parts.find((part) => part.word === word)),
      into = routes.filter((one) => one.destination === word).sort((a, b) => span(a) - span(b)),
      out = routes.filter((one) => one.source === word).sort((a, b) => span(b) - span(a)),
      share = ([...into, ...out].indexOf(route) + 0.5) / (into.length + out.length);
    return at + (slot - wide) / 2 + wide * (0.12 + 0.76 * share);
  };
  const laid = routes.map((route) => {
    const swap = swapsOf(value, route).find(({ says, counterpart }) => says[0].text === counterpart), // it flips
      carried = listed(route.carried?.words ?? []),
      detail = [route.layers && layersOf(route.layers), `${short(route.effect)} nats`].filter(Boolean).join(" · "),
      other = swap ? `with ${wordText(swap.instead)}: ${wordText(swap.counterpart)}` : "",
      lines = [carried, detail, other].filter(Boolean),
      [from, to] = [end(route, route.source), end(route, route.destination)],
      again = parts.filter(({ word }) => route.with_words.includes(word)).map(({ at, slot }) => at + slot / 2),
      half = Math.max(...lines.map((text) => long(text, text === carried ? "label" : "small"))) / 2 + 3,
      middle = Math.max(half, Math.min((from + to) / 2, width - half));
    const reach = [Math.min(from, ...again, middle - half) - 3, Math.max(to, middle + half) + 3];
    return { route, starts: [from, ...again], from, to, lines, middle, carried, reach, top: 0 };
  });
  const above = [...laid].sort((a, b) => a.to - a.from - (b.to - b.from));
  for (const [i, arc] of above.entries()) {
    const under = above.slice(0, i).filter(({ reach }) => reach[0] < arc.reach[1] && reach[1] > arc.reach[0]);
    arc.top = Math.max(34, ...under.map(({ top, lines }) => top + LINE * lines.length + 16));
  }
  return laid;
}

/** @param {ReturnType<typeof lay>[number]} arc @param {RoutesValue} value @param {number} base @param {number} most @param {boolean} isCut */
function arcOf({ route, starts, to, top, lines, middle, carried }, value, base, most, isCut) {
  const wide = 1.5 + (WIDEST - 1.5) * (Math.abs(route.effect) / most),
    head = 4 + wide / 2,
    y = base - top - wide / 2 - 6 - LINE * (lines.length - 1),
    [start, bend, stop] = [base, base - (top + wide / 2) / 0.75, base - head].map((v) => v.toFixed(1)),
    curve = starts.map((from) => `M${from} ${start}C${from} ${bend} ${to} ${bend} ${to} ${stop}`).join(""),
    [a, b] = [route.source, route.destination].map((i) => wordText(value.words[i].text)),
    spoken = [`${a} tells ${b}`, `${short(route.effect)} nats`, route.layers && layersOf(route.layers), carried],
    look = `wb-arc${route.effect < 0 ? " wb-arc-against" : ""}${isCut ? " wb-arc-cut" : ""}`;
  return svg(
    "g",
    { class: look, role: "button", "data-item": keyOf(route), "aria-label": spoken.filter(Boolean).join(", ") },
    svg("path", { d: curve, class: "wb-arc-hit" }),
    svg("path", { d: curve, class: "wb-arc-line", "stroke-width": wide }),
    svg("path", { d: `M${to - head} ${stop}H${to + head}L${to} ${base}Z`, class: "wb-arc-head" }),
    ...lines.map((text, i) =>
      svg("text", { x: middle, y: y + LINE * i, class: text === carried ? "wb-arc-label" : "wb-arc-small" }, text),
    ),
  );
}

/** @param {LinePart} part @param {RoutesValue} value @param {number} base @param {number} most */
function wordOf({ word, text, at, slot, wide, station }, value, base, most) {
  const middle = at + slot / 2,
    shown = svg("text", { x: middle, y: base + 20, class: "wb-arc-text" }, text);
  if (word < 0) return svg("g", { class: "wb-arc-left" }, shown);
  const { total } = value.words[word],
    box = { x: middle - wide / 2, y: base + 3, width: wide, height: 25, rx: 5 },
    under = station ? [`+ ${listed(station.words)}`, layersOf(station)] : [],
    look = `wb-arc-small${station?.restates ? " wb-arc-restates" : ""}`;
  return svg(
    "g",
    {
      class: `wb-arc-word${total < 0 ? " wb-arc-against" : ""}`,
      role: "button",
      "data-item": `${word}`,
      "aria-label": [`${text}, ${short(total)} nats in all`, ...under].join(", "),
    },
    svg("rect", { ...box, "fill-opacity": 0.06 + (0.36 * Math.abs(total)) / most }),
    shown,
    ...under.map((said, i) => svg("text", { x: middle, y: base + 44 + 14 * i, class: look }, said)),
  );
}

const KEPT = "fill fill-opacity stroke stroke-width stroke-opacity stroke-dasharray font paint-order text-anchor".split(
  " ",
);

/** The picture as a file, with the colours that it has now. @param {Element} picture */
export function asFile(picture) {
  const copy = /** @type {Element} */ (picture.cloneNode(true)),
    [seen, made] = [picture, copy].map((root) => [root, ...root.querySelectorAll("*")]);
  for (const [i, part] of made.entries()) {
    const styles = getComputedStyle(seen[i]);
    const style = KEPT.map((name) => `${name}:${styles.getPropertyValue(name).replace(/"/g, "'")}`);
    if (part === copy) style.push(`background:${styles.getPropertyValue("--wb-surface")}`);
    part.setAttribute("style", style.join(";"));
  }
  return new Blob([new XMLSerializer().serializeToString(copy)], { type: "image/svg+xml" });
}
