// Legend of the colours, which also filters: drag over a scale to show a range only, click a category to show it only.

import { contextOf, count, element, short, visible } from "../dom.mjs";
import { along } from "./looks.mjs";

const WIDTH = 168;

export class Legend {
  /**
   * @param {(filter: string) => void} filtered called with "column:low,high", "column=1,4" or ""
   * @param {HTMLElement} root @param {(filter: string) => void} filtered
   */
  constructor(root, filtered) {
    this.filtered = filtered;
    this.box = element("div", { class: "atlas-legend" });
    root.append(this.box);
  }

  /**
   * `colouring`: {column, ends} of numbers, {column, slots} of categories, or null.
   * @param {Colouring | null} colouring @param {AtlasTheme} theme @param {string} filter
   */
  show(colouring, theme, filter) {
    this.box.replaceChildren();
    const column = colouring?.column;
    this.box.hidden = !column;
    if (!colouring || !column) return;
    this.box.append(
      element(
        "div",
        { class: "atlas-legend-title", title: column.about || null, dir: "auto" },
        visible(column.title, 60),
      ),
    );
    if (column.kind === "number") this.scale(column, colouring.ends, theme, filter);
    else this.categories(column, colouring.slots, theme, filter);
    if (filter)
      this.box.append(
        element("button", { type: "button", class: "atlas-clear", onclick: () => this.filtered("") }, "show all"),
      );
  }

  /** @param {Column} column @param {Ends} ends @param {AtlasTheme} theme @param {string} filter */
  scale(column, [low, high], theme, filter) {
    const bar = element("canvas", {
      class: "atlas-scale",
      width: WIDTH,
      height: 12,
      tabindex: "0",
      role: "slider",
      "aria-label": `Range of ${column.title}`,
      "aria-valuetext": filter || "all",
      "aria-valuenow": 0,
    });
    const range = filter.startsWith(`${column.name}:`) ? numbersIn(filter, ":") : [low, high];
    /** @param {number} value */
    const at = (value) => ((value - low) / (high - low || 1)) * WIDTH;
    /** @param {number} from @param {number} to */
    const draw = (from, to) => {
      const context = contextOf(bar);
      context.clearRect(0, 0, WIDTH, 12);
      for (let x = 0; x < WIDTH; x++) {
        context.globalAlpha = x >= from - 0.5 && x <= to + 0.5 ? 1 : 0.2;
        context.fillStyle = `rgb(${along(theme.scale, x / (WIDTH - 1))
          .map(Math.round)
          .join(",")})`;
        context.fillRect(x, 0, 1, 12);
      }
    };
    draw(at(range[0]), high > low ? at(range[1]) : WIDTH); // a single value fills the scale
    this.brush(bar, draw, (from, to) => {
      /** @param {number} x */
      const value = (x) => Number((low + (x / WIDTH) * (high - low)).toPrecision(4));
      this.filtered(to - from < 3 ? "" : `${column.name}:${value(from)},${value(to)}`);
    });
    this.box.append(
      bar,
      element("div", { class: "atlas-ends" }, element("span", {}, short(low)), element("span", {}, short(high))),
    );
  }

  /**
   * @param {HTMLCanvasElement} bar @param {(from: number, to: number) => void} draw
   * @param {(from: number, to: number) => void} done
   */
  brush(bar, draw, done) {
    /** @type {number | null} */
    let start = null;
    /** @param {PointerEvent} event */
    const at = (event) =>
      Math.min(WIDTH, Math.max(0, ((event.clientX - bar.getBoundingClientRect().left) / bar.clientWidth) * WIDTH));
    /** @param {PointerEvent} event @param {number} from @returns {Ends} */
    const span = (event, from) => [Math.min(from, at(event)), Math.max(from, at(event))];
    bar.addEventListener("pointerdown", (event) => {
      start = at(event);
      bar.setPointerCapture(event.pointerId);
    });
    bar.addEventListener("pointermove", (event) => start !== null && draw(...span(event, start)));
    bar.addEventListener("pointerup", (event) => {
      if (start !== null) done(...span(event, start));
      start = null;
    });
  }

  /** @param {Column} column @param {number[]} slots @param {AtlasTheme} theme @param {string} filter */
  categories(column, slots, theme, filter) {
    const kept = filter.startsWith(`${column.name}=`) ? numbersIn(filter, "=") : null;
    const list = element("div", { class: "atlas-categories" });
    /** @param {number} slot */
    const colour = (slot) => (slot ? theme.categories[slot - 1] : theme.noise);
    column.names.slice(0, 12).forEach((name, i) => {
      const number = i + 1,
        on = !kept || kept.includes(number);
      const swatch = element("span", { class: "atlas-swatch" });
      swatch.style.background = colour(slots[number]);
      const toggle = () => {
        const next = kept ? (on ? kept.filter((k) => k !== number) : [...kept, number]) : [number];
        this.filtered(next.length ? `${column.name}=${next.join(",")}` : "");
      };
      list.append(
        element(
          "button",
          {
            type: "button",
            "aria-pressed": String(Boolean(kept && on)),
            class: on ? "" : "atlas-off",
            onclick: toggle,
          },
          swatch,
          element("span", { class: "atlas-name", dir: "auto" }, visible(name, 30)),
          element("span", { class: "atlas-count" }, count(column.counts[i])),
        ),
      );
    });
    if (column.names.length > 12)
      list.append(element("span", { class: "atlas-more" }, `and ${count(column.names.length - 12)} more`));
    this.box.append(list);
  }
}

/** The numbers behind the last `mark` of a filter. @param {string} filter @param {string} mark */
const numbersIn = (filter, mark) =>
  filter
    .slice(filter.lastIndexOf(mark) + 1)
    .split(",")
    .map(Number);
