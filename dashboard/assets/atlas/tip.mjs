// Tooltip of the point under the pointer. Text is never parsed as HTML.

import { element, short, visible } from "../dom.mjs";

export class Tip {
  /** @param {HTMLElement} root */
  constructor(root) {
    this.box = element("div", { class: "atlas-tip", hidden: true, "aria-hidden": "true" });
    root.append(this.box);
  }

  /** @param {PointText} text @param {number} x @param {number} y @param {Camera} camera */
  show(text, x, y, camera) {
    const lines = [element("div", { class: "atlas-tip-label", dir: "auto" }, visible(text.label, 120) || "no label")];
    if (text.context)
      lines.push(element("div", { class: "atlas-tip-context", dir: "auto" }, visible(text.context, 240)));
    if (text.region) lines.push(element("div", { class: "atlas-tip-region", dir: "auto" }, visible(text.region, 90)));
    const values = text.values.map(
      ([name, value]) => `${visible(name, 40)} ${typeof value === "number" ? short(value) : visible(value, 40)}`,
    );
    const apart = values.flatMap((value, i) => [i ? " · " : "", element("bdi", {}, value)]); // no value changes the direction of the text after it
    lines.push(element("div", { class: "atlas-tip-values" }, ...apart));
    this.box.replaceChildren(...lines);
    this.box.hidden = false;
    this.box.dataset.point = String(text.point);
    this.follow(x, y, camera);
  }

  /** @param {number} x @param {number} y @param {Camera} given */
  follow(x, y, { width, height }) {
    if (this.box.hidden) return;
    const { offsetWidth: wide, offsetHeight: high } = this.box;
    const left = x + 16 + wide > width ? x - wide - 14 : x + 16;
    const top = y + 14 + high > height ? y - high - 10 : y + 14;
    this.box.style.transform = `translate(${Math.max(4, left)}px, ${Math.max(4, top)}px)`;
  }

  hide() {
    this.box.hidden = true;
  }
}
