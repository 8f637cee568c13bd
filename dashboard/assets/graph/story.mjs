// The story of a graph: at most twelve boxes, words of the prompt below, the answer above, and the arrows between them.
// It asks no server: the page and the file that opens from disk (dashboard/graph/_file.py) draw with it.

import { element, svg } from "../dom.mjs";
import { tokenText } from "./marks.mjs";

const GAP = 16; // pixels between two boxes of a row
const BETWEEN = 48; // pixels between two rows, in which arrows bend
const BESIDE = 4; // boxes in a row between the prompt and the answer
const STRONG = [0.3, 0.06]; // of the widest arrow into a box, and of all: wider ones go up, never along a row
const WIDEST = 12;
const WORDS = 3; // that a box reads, and says

export class StoryDrawing {
  /** @param {HTMLElement} root @param {Story} story @param {StoryGiven} given */
  constructor(root, story, given) {
    this.story = story;
    this.boxes = story.boxes.map((box, k) => this.box(box, k, given));
    this.arrows = svg("svg", { "aria-hidden": "true" });
    const named = { class: "wb-story-field", role: "group", "aria-label": "From the prompt to the answer" };
    this.field = element("div", named, this.arrows, ...this.boxes);
    const tests = story.boxes.flatMap(({ test }) => test ?? []),
      hold = tests.filter(({ holds }) => holds).length;
    const left = { title: "Share of the influence on the answer that no box carries" },
      held = `${hold} of ${tests.length} concepts act as one; members of the mixed agree no more than random latents. `;
    root.replaceChildren(
      element("p", { class: "wb-story-sentence", dir: "auto" }, ...emphasised(story.sentence)),
      this.field,
      element(
        "p",
        { class: "wb-note wb-story-foot" },
        element("strong", left, `left out: ${percent(story.left_out)}`),
        `Percentages are shares of the influence on the answer, whose own is its probability. ${tests.length ? held : ""}Blue raises, `,
        element("span", { class: "wb-story-negative" }, "orange"),
        " lowers.",
      ),
    );
    this.resizer = new ResizeObserver(() => this.field.clientWidth !== this.width && this.lay());
    this.resizer.observe(this.field);
    this.lay();
  }

  /** @param {StoryBox} box @param {number} k @param {StoryGiven} given */
  box({ kind, name, share, effect, reads, says, test, nodes }, k, { answer, chance, opened }) {
    const isAnswer = kind === "answer",
      between = kind !== "token" && !isAnswer,
      against = effect < 0 && between, // a word's effect is to having no word there, which says neither
      leads = this.story.arrows.filter(({ source }) => source === k).map(({ target }) => this.story.boxes[target].name),
      width = `${(100 * Math.min(1, share)).toFixed(1)}%`;
    /** @param {unknown} wanted @param {string} look @param {Child[]} children @param {Attributes} [more] */
    const line = (wanted, look, children, more) =>
      wanted ? element("span", { class: `wb-story-${look}`, dir: "auto", ...more }, ...children) : null;
    const attributes = {
      type: "button",
      class: `wb-story-box wb-story-${kind}${against ? " wb-story-against" : ""}`,
      "data-box": k,
      "aria-description": leads.length ? `leads to ${leads.join("; ")}` : null,
      title: `Open its ${nodes.length === 1 ? "node" : `${nodes.length} nodes`}`,
      onclick: () => opened(k),
      ...{ onmouseenter: () => this.light(k), onfocus: () => this.light(k) },
      ...{ onmouseleave: () => this.light(-1), onblur: () => this.light(-1) },
    };
    return element(
      "button",
      attributes,
      line(true, "name", emphasised(name)),
      line(true, "share", [isAnswer ? chance : percent(share)]),
      line(test && !test.holds, "mixed", ["mixed"], {
        title: test && `Its members do not act alike: ${agreement(test)}`,
      }),
      line(against, "line wb-story-negative", ["argues against ", element("em", {}, answer)]),
      line(between && reads.length, "line", [`reads ${listed(reads)}`]),
      line(between && says.length, "line", [`says ${listed(says)}`]),
      line(!isAnswer, "bar", [], { style: { width } }),
    );
  }

  /** Arrange the boxes in the present width, and draw the arrows between them. */
  lay() {
    const { story, field } = this;
    this.width = field.clientWidth;
    if (!this.width) return;
    const places = this.boxes.map(({ offsetWidth: width, offsetHeight: height }) => ({
        width,
        height,
        x: 0,
        y: 0,
        row: -1,
      })),
      height = arrange(story, places, this.width);
    field.style.height = `${height}px`;
    for (const [k, { x, y }] of places.entries()) Object.assign(this.boxes[k].style, { left: `${x}px`, top: `${y}px` });
    this.arrows.setAttribute("viewBox", `0 0 ${this.width} ${height}`);
    this.arrows.replaceChildren(...curves(story, places));
  }

  /** Light the arrows at a box; -1 for all. @param {number} k */
  light(k) {
    for (const arrow of this.arrows.children) {
      const ends = arrow.getAttribute("data-ends")?.split(" ") ?? [];
      arrow.classList.toggle("wb-story-dim", k >= 0 && !ends.includes(`${k}`));
    }
  }

  close() {
    this.resizer.disconnect();
  }
}

/** @param {number} share */
export const percent = (share) => (share > 0 && share < 0.005 ? "<1 %" : `${Math.round(100 * share)} %`);

/** @param {GroupTest} test */
export const agreement = (test) => `agreement ${test.agreement.toFixed(2)}, random groups ${test.chance.toFixed(2)}`;

/** @param {string[]} words */
export const listed = (words) =>
  Array.from(words.slice(0, WORDS), (word) => tokenText(word.trim() || word, 18)).join(", ");

/** Text with `*words*` emphasised. @param {string} text @returns {Child[]} */
export const emphasised = (text) =>
  text
    .split(/\*([^*]+)\*/)
    .map((part, i) => (i % 2 ? element("em", {}, tokenText(part, 60)) : tokenText(part, 400).replace(/^␣/, " ")))
    .filter((part) => part !== "∅");

/** Words of the prompt lie below the others, the answer above. @param {StoryBox} box */
const level = ({ kind }) => (kind === "token" ? 0 : kind === "answer" ? 2 : 1);

/** @param {StoryArrow[]} arrows */
const widest = (arrows) => Math.max(0, ...arrows.map(({ weight }) => Math.abs(weight)));

/**
 * Place the boxes, and return the height: rows from below, in which no strong arrow lies; in a row each box is near
 * those that lead to it.
 * @param {Story} story @param {StoryPlace[]} places @param {number} width
 */
export function arrange({ boxes, arrows }, places, width) {
  const key = (/** @type {number} */ k) => [level(boxes[k]), level(boxes[k]) && boxes[k].layer, boxes[k].position];
  const order = [...boxes.keys()].sort((a, b) => key(a).reduce((sign, value, i) => sign || value - key(b)[i], 0));
  /** @type {number[][]} */
  const rows = [];
  for (const k of order) {
    const row = rows.at(-1) ?? [];
    const fits = row.reduce((sum, other) => sum + places[other].width + GAP, places[k].width) <= width,
      alike = row.length && level(boxes[row[0]]) === level(boxes[k]) && (!level(boxes[k]) || row.length < BESIDE),
      into = arrows.filter(({ target }) => target === k),
      strong = Math.max(STRONG[0] * widest(into), STRONG[1] * widest(arrows)),
      above = into.some(({ source, weight }) => row.includes(source) && Math.abs(weight) > strong);
    if (fits && alike && !above) row.push(k);
    else rows.push([k]);
  }
  const prompt = rows.filter(([k]) => !level(boxes[k])).length;
  rows.unshift(...rows.splice(0, prompt).reverse()); // its words are read from above
  const heights = rows.map((row) => Math.max(...row.map((k) => places[k].height))),
    last = 1 + Math.max(...boxes.map(({ position }) => position));
  let y = heights.reduce((sum, height) => sum + height + BETWEEN, -BETWEEN);
  const whole = y;
  for (const [r, row] of rows.entries()) {
    for (const [i, k] of row.entries()) {
      const into = arrows.filter(({ source, target }) => target === k && places[source].row >= 0),
        sum = into.reduce((all, { weight }) => all + Math.abs(weight), 0),
        mean = into.reduce((all, { source, weight }) => all + centre(places[source]) * Math.abs(weight), 0) / sum,
        even = level(boxes[k]) ? (boxes[k].position + 0.5) / last : (i + 0.5) / row.length;
      places[k].x = (sum ? mean : even * width) - places[k].width / 2;
      places[k].y = y - (heights[r] + places[k].height) / 2;
    }
    pack(
      row.map((k) => places[k]).sort((a, b) => centre(a) - centre(b)),
      width,
    );
    for (const k of row) places[k].row = r;
    y -= heights[r] + BETWEEN;
  }
  return whole;
}

/** @param {StoryPlace} place */
const centre = ({ x, width }) => x + width / 2;

/** Move the boxes of a row apart and into the width, in their order. @param {StoryPlace[]} row @param {number} width */
function pack(row, width) {
  let least = 0;
  for (const place of row) {
    place.x = Math.max(least, place.x);
    least = place.x + place.width + GAP;
  }
  let most = width;
  for (const place of row.reverse()) {
    place.x = Math.min(place.x, most - place.width);
    most = place.x - GAP;
  }
}

/** An arrow each: a curve as wide as its weight, and its head; the widest last. @param {Story} story @param {StoryPlace[]} places */
function curves({ arrows }, places) {
  const most = widest(arrows),
    size = (/** @type {StoryArrow} */ { weight }) => Math.abs(weight) / most,
    drawn = [...arrows].sort((a, b) => size(a) - size(b));
  /**
   * Where an arrow meets a box: side by side in the order of the other ends.
   * @param {StoryArrow} arrow @param {"source" | "target"} end @param {"source" | "target"} other
   */
  const meets = (arrow, end, other) => {
    const beside = drawn.filter((one) => one[end] === arrow[end]),
      nth = beside.sort((a, b) => centre(places[a[other]]) - centre(places[b[other]])).indexOf(arrow),
      { x, width } = places[arrow[end]];
    return x + width * (0.2 + (0.6 * (nth + 0.5)) / beside.length);
  };
  return drawn.map((arrow) => {
    const [from, to] = [places[arrow.source], places[arrow.target]],
      wide = 1 + (WIDEST - 1) * size(arrow),
      head = 5 + wide / 2,
      sign = to.row > from.row ? 1 : -1, // along a row: over it, and in from above
      [ax, bx] = [meets(arrow, "source", "target"), meets(arrow, "target", "source")],
      by = sign > 0 ? to.y + to.height : to.y,
      end = by + sign * head,
      bend = sign > 0 ? (from.y - end) / 2 : BETWEEN * 0.6;
    const look = `wb-story-arrow${arrow.weight < 0 ? " wb-story-negative" : ""}`;
    const curve = `M${ax} ${from.y}C${ax} ${from.y - bend} ${bx} ${end + sign * bend} ${bx} ${end}`;
    return svg(
      "g",
      { class: look, "data-ends": `${arrow.source} ${arrow.target}` },
      svg("path", { d: curve, fill: "none", "stroke-width": wide }),
      svg("path", { d: `M${bx - head} ${end}L${bx + head} ${end}L${bx} ${by}Z`, stroke: "none" }),
    );
  });
}
