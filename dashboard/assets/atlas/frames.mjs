// Maps of the same points in several spaces (layers, checkpoints), in one frame: a slider, and animated moves between maps.

import { element } from "../dom.mjs";

const TIME = 450; // milliseconds from one map to another

export class Frames {
  /**
   * @param {string[]} names of the maps; the view begins with the last @param {HTMLElement} root
   * @param {string[]} names @param {AtlasView} view
   */
  constructor(root, names, view) {
    this.names = names;
    this.view = view;
    this.at = names.length - 1;
    this.ticket = 0;
    this.slider = element("input", {
      type: "range",
      min: "0",
      max: String(this.at),
      step: "1",
      value: String(this.at),
      "aria-label": "Which map",
      oninput: () => this.show(Number(this.slider.value)).catch((error) => view.fail(error)),
    });
    this.word = element("output", {});
    this.say();
    root.append(element("div", { class: "atlas-frames" }, this.slider, this.word));
  }

  /** Regions and their names are those of the last map. */
  get atLast() {
    return this.at === this.names.length - 1;
  }

  say() {
    this.word.textContent = `${this.names[this.at]} (${this.at + 1} of ${this.names.length})`;
    this.slider.setAttribute("aria-valuetext", this.names[this.at]);
  }

  /** @param {number} at */
  async show(at) {
    this.at = at;
    this.say();
    const ticket = ++this.ticket;
    const target = await this.view.source.column({ name: `frame_${at}`, dtype: "float32" });
    if (ticket !== this.ticket) return;
    const { xy } = this.view.points,
      from = xy.slice(),
      began = performance.now();
    const time = window.matchMedia("(prefers-reduced-motion: reduce)").matches ? 0 : TIME;
    const step = () => {
      if (ticket !== this.ticket || this.view.closed) return;
      const gone = time ? Math.min(1, (performance.now() - began) / time) : 1;
      const share = gone * gone * (3 - 2 * gone);
      for (let i = 0; i < xy.length; i++) xy[i] = from[i] + share * (target[i] - from[i]);
      this.view.relaid(gone === 1);
      if (gone < 1) requestAnimationFrame(step);
    };
    step();
  }
}
