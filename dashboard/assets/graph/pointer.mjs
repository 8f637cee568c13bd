// Pointer and keys on the canvas: hover, click, drag, wheel, pinch, and the keys of the graph.

import { under } from "../dom.mjs";
import { KINDS } from "./model.mjs";

const CLICK = 4;
const STEP = 60;
const FEW = 1000; // lines that are compared with the pointer as it moves

export class Pointer {
  /** @param {GraphView} view */
  constructor(view) {
    this.view = view;
    this.canvas = view.canvas;
    /** @type {Map<number, Point>} */
    this.fingers = new Map();
    /** @type {GraphDrag | null} */
    this.drag = null;
    /** @type {Spread | null} */
    this.pinched = null; // while two fingers are down
    const { area } = view;
    area.addEventListener("pointerdown", (event) => this.down(event));
    area.addEventListener("pointermove", (event) => this.move(event));
    area.addEventListener("pointerup", (event) => this.up(event));
    area.addEventListener("pointercancel", (event) => this.cancel(event));
    area.addEventListener("pointerleave", () => this.hover(-1));
    area.addEventListener("wheel", (event) => this.wheel(event), { passive: false });
    area.addEventListener("keydown", (event) => this.key(event));
    area.addEventListener("dblclick", () => {
      this.canvas.fit();
      this.canvas.redraw();
    });
  }

  /** @param {MouseEvent} event @returns {Point} */
  at(event) {
    const box = this.view.area.getBoundingClientRect();
    return [event.clientX - box.left, event.clientY - box.top];
  }

  /** @param {number} k @param {number} [x] @param {number} [y] */
  hover(k, x = 0, y = 0) {
    const { links, isCircuit } = this.view.scene,
      near = k < 0 && x && links.from.length <= FEW ? this.canvas.linkAt(x, y) : -1;
    this.canvas.light(k, this.canvas.chosen, isCircuit ? near : -1);
    this.view.area.style.cursor = k >= 0 || near >= 0 ? "pointer" : "";
    this.view.tipFor(k >= 0 ? this.view.scene.items[k] : null, x, y);
  }

  /** @param {PointerEvent} event */
  down(event) {
    if (event.button !== 0 || under(event, "button")) return;
    this.view.area.setPointerCapture(event.pointerId);
    const [x, y] = this.at(event),
      item = this.canvas.hit(x, y);
    this.fingers.set(event.pointerId, [x, y]);
    this.pinched = this.fingers.size === 2 ? this.spread() : null;
    this.drag = { x, y, startX: x, startY: y, item, far: false };
  }

  /** @param {PointerEvent} event */
  move(event) {
    const [x, y] = this.at(event),
      { drag, canvas } = this;
    if (!drag) return this.hover(canvas.hit(x, y), x, y);
    if (this.fingers.has(event.pointerId)) this.fingers.set(event.pointerId, [x, y]);
    if (this.pinched) return this.pinch(this.pinched);
    if (!drag.far && Math.hypot(x - drag.startX, y - drag.startY) < CLICK) return;
    if (!drag.far) this.hover(-1);
    drag.far = true;
    canvas.pan(x - drag.x, y - drag.y);
    [drag.x, drag.y] = [x, y];
  }

  /** @param {PointerEvent} event */
  up(event) {
    const { drag, view } = this;
    this.fingers.delete(event.pointerId);
    this.drag = null;
    if (!drag || drag.far || this.pinched) return;
    view.pressed(view.scene.items[drag.item] ?? null, drag.x, drag.y);
  }

  /** @param {PointerEvent} event */
  cancel(event) {
    this.fingers.delete(event.pointerId);
    this.drag = null;
  }

  spread() {
    const [[ax, ay], [bx, by]] = [...this.fingers.values()];
    return { x: (ax + bx) / 2, y: (ay + by) / 2, length: Math.hypot(ax - bx, ay - by) || 1 };
  }

  /** @param {Spread} before */
  pinch(before) {
    if (this.fingers.size < 2) return;
    const now = this.spread();
    this.canvas.pan(now.x - before.x, now.y - before.y);
    this.canvas.zoomAt(now.length / before.length, now.x, now.y);
    this.pinched = now;
  }

  /** @param {WheelEvent} event */
  wheel(event) {
    if (this.view.scrolls && !event.ctrlKey) return;
    event.preventDefault();
    const pixels = event.deltaY * (event.deltaMode === 1 ? 16 : event.deltaMode === 2 ? 400 : 1);
    this.canvas.zoomAt(
      Math.exp(-Math.min(Math.max(pixels, -240), 240) * (event.ctrlKey ? 0.01 : 0.002)),
      ...this.at(event),
    );
  }

  /** @param {KeyboardEvent} event */
  key(event) {
    if (event.ctrlKey || event.metaKey || !(event.target === this.view.area || event.target === document.body)) return;
    const { view, canvas } = this;
    const zoom = (/** @type {number} */ factor) => canvas.zoomAt(factor, canvas.width / 2, canvas.height / 2);
    const arrows = { ArrowUp: [0, -1], ArrowDown: [0, 1], ArrowLeft: [-1, 0], ArrowRight: [1, 0] }[event.key];
    /** @type {Record<string, () => void>} */
    const acts = {
      "+": () => zoom(1.4),
      "=": () => zoom(1.4),
      "-": () => zoom(1 / 1.4),
      0: () => {
        canvas.fit();
        canvas.redraw();
      },
      Enter: () => (view.chosen === null ? this.first() : view.choose(view.chosen, false, true)),
    };
    if (arrows && event.shiftKey) canvas.pan(-STEP * arrows[0], -STEP * arrows[1]);
    else if (event.altKey) return;
    else if (arrows) this.walk(arrows[0], arrows[1]);
    else if (acts[event.key]) acts[event.key]();
    else if (!view.act(event.key, view.chosen)) return;
    event.preventDefault();
    event.stopPropagation();
  }

  /** Choose the first target, or the strongest node where there is none. */
  first() {
    const { model, scene } = this.view,
      at = model.targets.find((i) => scene.at[i] >= 0) ?? scene.items[scene.ranked[0]]?.node;
    if (at !== undefined) this.view.choose(at, true);
  }

  /**
   * Up: the strongest reader; down: the strongest source; left and right: the next node of the layer.
   * @param {number} dx @param {number} dy
   */
  walk(dx, dy) {
    const { view } = this,
      { scene } = view,
      k = view.chosen === null ? -1 : scene.at[view.chosen];
    if (k < 0) return this.first();
    const { links, items } = scene,
      edges = dy < 0 ? links.out[k] : links.into[k];
    let next = null;
    if (dy) {
      const best = edges.reduce((a, e) => (a < 0 || links.strength[e] > links.strength[a] ? e : a), -1);
      next = best < 0 ? null : dy < 0 ? links.to[best] : links.from[best];
    } else {
      const row = items
        .map((_, i) => i)
        .filter(
          (i) => items[i].layer === items[k].layer && (items[i].kind === items[k].kind || items[k].kind < KINDS.TOKEN),
        )
        .sort((a, b) => items[a].x - items[b].x || items[a].y - items[b].y);
      next = row[row.indexOf(k) + dx] ?? null;
    }
    if (next !== null) view.choose(items[next].strongest ?? items[next].node, true);
  }
}
