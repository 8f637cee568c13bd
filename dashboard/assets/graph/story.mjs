// The story of a graph: at most twelve boxes, words of the prompt below, the answer above, and the arrows between them.
// It asks no server: the page and the file that opens from disk (dashboard/graph/_file.py) draw with it.

import { element } from "../dom.mjs";
import { tokenText } from "./marks.mjs";

const SPACE = "http://www.w3.org/2000/svg";
const GAP = 16; // pixels between two boxes of a row
const BETWEEN = 54; // pixels between two rows, in which arrows bend
const BESIDE = 4; // boxes in a row between the prompt and the answer
const STRONG = 0.25; // of the widest arrow: one that wide goes up, never along a row
const WEAK = 0.03; // of the widest arrow: thinner ones are left out
const WIDEST = 12;
const WORDS = 3; // that a box reads, and says

export class StoryDrawing {
  /**
   * @param {HTMLElement} root @param {Story} story
   * @param {{ answer: string, chance?: string, opened: (box: number) => void }} given the target in words, its
   *   probability, and what a click on a box does
   */
  constructor(root, story, { answer, chance = "", opened }) {
    this.story = story;
    this.answer = answer;
    this.chance = chance.replace("named target", "");
    this.boxes = story.boxes.map((box, k) => this.box(box, k, opened));
    this.arrows = document.createElementNS(SPACE, "svg");
    this.arrows.setAttribute("aria-hidden", "true");
    this.field = element("div", {
      class: "wb-story-field",
      role: "group",
      "aria-label": "From the prompt to the answer",
    });
    this.field.append(this.arrows, ...this.boxes);
    const tested = story.boxes.filter(({ test }) => test),
      hold = tested.filter(({ test }) => test?.holds).length;
    root.replaceChildren(
      element("p", { class: "wb-story-sentence", dir: "auto" }, ...emphasised(story.sentence)),
      this.field,
      element(
        "p",
        { class: "wb-note wb-story-foot" },
        element(
          "strong",
          { title: "Share of the influence on the answer that no box carries" },
          `left out: ${percent(story.left_out)}`,
        ),
        tested.length
          ? ` ${hold} of ${tested.length} boxes act as one: their members’ effects agree more than those of random groups.`
          : "",
        " Blue argues for the answer, ",
        element("span", { class: "wb-story-negative" }, "orange"),
        " against it; a wider arrow is a larger direct influence. Open a box for its nodes.",
      ),
    );
    this.resizer = new ResizeObserver(() => this.field.clientWidth !== this.width && this.lay());
    this.resizer.observe(this.field);
    this.lay();
  }

  /** @param {StoryBox} box @param {number} k @param {(box: number) => void} opened */
  box({ kind, name, share, effect, reads, says, test, nodes }, k, opened) {
    const isAnswer = kind === "answer",
      against = effect < 0 && !isAnswer,
      between = kind !== "token" && !isAnswer,
      leads = this.story.arrows.filter(({ source }) => source === k).map(({ target }) => this.story.boxes[target].name);
    /** @param {string} look @param {Child[]} children @param {Attributes} [given] */
    const line = (look, children, given) => element("span", { class: `wb-story-${look}`, ...given }, ...children);
    const made = element(
      "button",
      {
        type: "button",
        class: `wb-story-box wb-story-${kind}${against ? " wb-story-against" : ""}`,
        "data-box": k,
        "aria-description": leads.length ? `leads to ${leads.join("; ")}` : null,
        title: `Open its ${nodes.length === 1 ? "node" : `${nodes.length} nodes`}`,
        onclick: () => opened(k),
        onmouseenter: () => this.light(k),
        onfocus: () => this.light(k),
        onmouseleave: () => this.light(-1),
        onblur: () => this.light(-1),
      },
      line("name", emphasised(name), { dir: "auto" }),
      line("share", [isAnswer ? this.chance : percent(share)]),
      test && !test.holds
        ? line("mixed", ["mixed"], { title: `Its members do not act alike: ${agreement(test)}` })
        : null,
      against ? line("line wb-story-negative", ["argues against ", element("em", {}, this.answer)]) : null,
      between && reads.length ? line("line", [`reads ${listed(reads)}`], { dir: "auto" }) : null,
      between && says.length ? line("line", [`says ${listed(says)}`], { dir: "auto" }) : null,
      isAnswer ? null : line("bar", [], { style: { width: `${(100 * Math.min(1, share)).toFixed(1)}%` } }),
    );
    return made;
  }

  /** Arrange the boxes in the present width, and draw the arrows between them. */
  lay() {
    const { story, field } = this;
    this.width = field.clientWidth;
    if (!this.width) return;
    const sizes = this.boxes.map((box) => ({ width: box.offsetWidth, height: box.offsetHeight })),
      { places, height } = arrange(story, sizes, this.width);
    field.style.height = `${height}px`;
    for (const [k, { x, y }] of places.entries()) Object.assign(this.boxes[k].style, { left: `${x}px`, top: `${y}px` });
    this.arrows.setAttribute("viewBox", `0 0 ${this.width} ${height}`);
    this.arrows.replaceChildren(...curves(story, sizes, places));
  }

  /** Light the arrows at a box; -1 for all. @param {number} k */
  light(k) {
    for (const arrow of this.arrows.children)
      arrow.classList.toggle(
        "wb-story-dim",
        k >= 0 && !(arrow.getAttribute("data-ends") ?? "").split(" ").includes(`${k}`),
      );
  }

  close() {
    this.resizer.disconnect();
  }
}

/** @param {number} share */
export const percent = (share) => (share > 0 && share < 0.005 ? "<1 %" : `${Math.round(100 * share)} %`);

/** @param {GroupTest} test */
export const agreement = ({ agreement, chance }) =>
  `agreement ${agreement.toFixed(2)}, random groups ${chance.toFixed(2)}`;

/** @param {string[]} words */
export const listed = (words) =>
  words
    .slice(0, WORDS)
    .map((word) => tokenText(word.trim() || word, 18))
    .join(", ");

/** Text with `*words*` emphasised. @param {string} text @returns {Child[]} */
export function emphasised(text) {
  return text
    .split(/\*([^*]+)\*/)
    .map((part, i) => (i % 2 ? element("em", {}, tokenText(part, 60)) : tokenText(part, 400).replace(/^␣/, " ")))
    .filter((part) => part !== "∅");
}

/** Words of the prompt lie below the others, the answer above. @param {StoryBox} box */
const level = ({ kind }) => (kind === "token" ? 0 : kind === "answer" ? 2 : 1);

/**
 * Places of the boxes: rows from below, in which no strong arrow lies; in a row each box is near those that lead to it.
 * @param {Story} story @param {{ width: number, height: number }[]} sizes @param {number} width
 */
export function arrange({ boxes, arrows }, sizes, width) {
  const most = Math.max(0, ...arrows.map(({ weight }) => Math.abs(weight))),
    order = [...boxes.keys()].sort(
      (a, b) =>
        level(boxes[a]) - level(boxes[b]) ||
        (level(boxes[a]) ? boxes[a].layer - boxes[b].layer : 0) ||
        boxes[a].position - boxes[b].position,
    );
  /** @type {number[][]} */
  const rows = [];
  for (const k of order) {
    const row = rows.at(-1);
    const joins =
      row &&
      level(boxes[row[0]]) === level(boxes[k]) &&
      (level(boxes[k]) !== 1 || row.length < BESIDE) &&
      row.reduce((sum, other) => sum + sizes[other].width + GAP, sizes[k].width) <= width &&
      !arrows.some(
        ({ source, target, weight }) => target === k && row.includes(source) && Math.abs(weight) > STRONG * most,
      );
    if (joins) row.push(k);
    else rows.push([k]);
  }
  const prompt = rows.filter(([k]) => !level(boxes[k])).length;
  rows.splice(0, prompt, ...rows.slice(0, prompt).reverse()); // its words are read from above
  /** @type {{ x: number, y: number, row: number }[]} */
  const places = [];
  const last = Math.max(1, ...boxes.map(({ position }) => position)),
    tall = rows.map((row) => Math.max(...row.map((k) => sizes[k].height)));
  let below = 0;
  const height = tall.reduce((sum, high) => sum + high + BETWEEN, -BETWEEN);
  for (const [r, row] of rows.entries()) {
    const wanted = new Map(row.map((k, i) => [k, middle(k, i)]));
    /** @param {number} k @param {number} i */
    function middle(k, i) {
      const into = arrows.filter(({ source, target }) => target === k && places[source]),
        sum = into.reduce((all, { weight }) => all + Math.abs(weight), 0);
      if (!level(boxes[k])) return ((i + 0.5) * width) / row.length;
      if (!sum) return (width * (boxes[k].position + 0.5)) / (last + 1);
      return (
        into.reduce(
          (all, { source, weight }) => all + (places[source].x + sizes[source].width / 2) * Math.abs(weight),
          0,
        ) / sum
      );
    }
    row.sort((a, b) => (wanted.get(a) ?? 0) - (wanted.get(b) ?? 0));
    const lefts = packed(
      row.map((k) => ({ middle: wanted.get(k) ?? 0, width: sizes[k].width })),
      width,
    );
    row.forEach((k, i) => {
      places[k] = { x: lefts[i], y: height - below - tall[r] / 2 - sizes[k].height / 2, row: r };
    });
    below += tall[r] + BETWEEN;
  }
  return { places, height };
}

/**
 * Left ends of intervals near their middles, in their order, apart from each other and within the width.
 * @param {{ middle: number, width: number }[]} items @param {number} width
 */
function packed(items, width) {
  const lefts = items.map((item) => item.middle - item.width / 2);
  for (let i = 0, least = 0; i < items.length; least = lefts[i] + items[i].width + GAP, i++)
    lefts[i] = Math.max(least, lefts[i]);
  for (let i = items.length - 1, most = width; i >= 0; most = lefts[i] - GAP, i--)
    lefts[i] = Math.min(lefts[i], most - items[i].width);
  return lefts;
}

/**
 * An arrow each: a curve as wide as its weight, and its head; the widest last.
 * @param {Story} story @param {{ width: number, height: number }[]} sizes
 * @param {{ x: number, y: number, row: number }[]} places
 */
function curves({ arrows }, sizes, places) {
  const most = Math.max(0, ...arrows.map(({ weight }) => Math.abs(weight))),
    drawn = arrows
      .filter(({ weight }) => Math.abs(weight) > WEAK * most)
      .sort((a, b) => Math.abs(a.weight) - Math.abs(b.weight)),
    centre = (/** @type {number} */ k) => places[k].x + sizes[k].width / 2;
  /** Where an arrow meets a box: side by side in the order of the other ends. @param {StoryArrow} arrow @param {"source" | "target"} end */
  const meets = (arrow, end) => {
    const k = arrow[end],
      other = end === "source" ? "target" : "source",
      all = drawn.filter((each) => each[end] === k).sort((a, b) => centre(a[other]) - centre(b[other]));
    return places[k].x + sizes[k].width * (0.2 + (0.6 * (all.indexOf(arrow) + 0.5)) / all.length);
  };
  return drawn.map((arrow) => {
    const { source, target, weight } = arrow,
      wide = 1 + ((WIDEST - 1) * Math.abs(weight)) / most,
      head = 5 + wide / 2,
      up = places[target].row > places[source].row,
      [ax, ay] = [meets(arrow, "source"), places[source].y],
      bx = meets(arrow, "target"),
      by = up ? places[target].y + sizes[target].height : places[target].y, // along a row: over it, and in from above
      end = up ? by + head : by - head,
      bend = up ? (ay - end) / 2 : BETWEEN * 0.6;
    const made = document.createElementNS(SPACE, "g");
    made.setAttribute("class", weight < 0 ? "wb-story-arrow wb-story-negative" : "wb-story-arrow");
    made.setAttribute("data-ends", `${source} ${target}`);
    const path = (/** @type {Record<string, string>} */ given) => {
      const line = document.createElementNS(SPACE, "path");
      for (const [name, value] of Object.entries(given)) line.setAttribute(name, value);
      return line;
    };
    const fixed = (/** @type {number[]} */ values) => values.map((value) => value.toFixed(1)).join(" ");
    made.append(
      path({
        d: `M${fixed([ax, ay])}C${fixed([ax, ay - bend, bx, up ? end + bend : end - bend, bx, end])}`,
        fill: "none",
        "stroke-width": wide.toFixed(1),
      }),
      path({ d: `M${fixed([bx - head, end])}L${fixed([bx + head, end])}L${fixed([bx, by])}Z`, stroke: "none" }),
    );
    return made;
  });
}
