// Gestures: drag to move, wheel to zoom about the pointer, shift-drag for a lasso, alt-drag for a rectangle, a mode for
// each, two fingers, and keys. This module moves the camera itself and reports everything else through `on`.

const CLICK = 4; // largest movement in pixels that still counts as a click
const STEP = 80;

export class Gestures {
  /**
   * @param {HTMLElement} target @param {Camera} camera @param {GestureReports} on
   */
  constructor(target, camera, on) {
    this.target = target;
    this.camera = camera;
    this.on = on;
    this.mode = "pan";
    /** @type {Map<number, Point>} */
    this.fingers = new Map();
    /** @type {Drag | null} */
    this.drag = null;
    /** @type {Spread | null} */
    this.pinched = null; // while two fingers are down
    target.addEventListener("pointerdown", (event) => this.down(event));
    target.addEventListener("pointermove", (event) => this.move(event));
    target.addEventListener("pointerup", (event) => this.up(event));
    target.addEventListener("pointercancel", (event) => this.cancel(event));
    target.addEventListener("pointerleave", () => this.on.left());
    target.addEventListener("wheel", (event) => this.wheel(event), { passive: false });
    target.addEventListener("dblclick", (event) => this.double(event));
    target.addEventListener("keydown", (event) => this.key(event));
    target.addEventListener("contextmenu", (event) => this.drag && event.preventDefault());
  }

  /** @param {MouseEvent} event @returns {Point} */
  at(event) {
    const box = this.target.getBoundingClientRect();
    return [event.clientX - box.left, event.clientY - box.top];
  }

  /** @param {PointerEvent} event */
  down(event) {
    if (event.button !== 0) return;
    this.target.setPointerCapture(event.pointerId);
    const [x, y] = this.at(event);
    this.fingers.set(event.pointerId, [x, y]);
    this.pinched = this.fingers.size === 2 ? this.spread() : null;
    const kind = this.pinched ? "pinch" : this.kindOf(event),
      add = event.ctrlKey || event.metaKey;
    this.drag = { kind, x, y, startX: x, startY: y, far: false, path: [x, y], add };
  }

  /** @param {MouseEvent} event */
  kindOf(event) {
    if (event.shiftKey) return this.mode === "rectangle" ? "rectangle" : "lasso";
    if (event.altKey) return "rectangle";
    return this.mode;
  }

  /** @param {PointerEvent} event */
  move(event) {
    const [x, y] = this.at(event);
    const { drag } = this;
    if (!drag) return this.on.hovered(x, y);
    if (this.fingers.has(event.pointerId)) this.fingers.set(event.pointerId, [x, y]);
    if (drag.kind === "pinch") return this.pinch();
    if (!drag.far && Math.hypot(x - drag.startX, y - drag.startY) < CLICK) return;
    drag.far = true;
    if (drag.kind === "pan") {
      this.camera.pan(x - drag.x, y - drag.y);
      this.on.moved();
    } else {
      drag.path.push(x, y);
      this.on.drawing(this.outline(drag, x, y), drag.kind);
    }
    [drag.x, drag.y] = [x, y];
  }

  /** @param {Drag} given @param {number} x @param {number} y */
  outline({ kind, path, startX, startY }, x, y) {
    return kind === "lasso" ? path : [startX, startY, x, startY, x, y, startX, y];
  }

  /** @param {PointerEvent} event */
  up(event) {
    const { drag } = this;
    this.fingers.delete(event.pointerId);
    if (!drag) return;
    if (drag.kind === "pinch" && this.fingers.size) return;
    this.drag = null;
    if (drag.kind === "pinch") return this.on.rested();
    if (!drag.far) return this.on.clicked(drag.startX, drag.startY, drag.add);
    if (drag.kind === "pan") return this.on.rested();
    this.on.drawn(this.outline(drag, drag.x, drag.y), drag.kind);
  }

  /** @param {PointerEvent} event */
  cancel(event) {
    this.fingers.delete(event.pointerId);
    if (this.drag && this.drag.kind !== "pan" && this.drag.kind !== "pinch") this.on.drawing(null);
    this.drag = null;
    this.on.rested();
  }

  spread() {
    const [[ax, ay], [bx, by]] = [...this.fingers.values()];
    return { x: (ax + bx) / 2, y: (ay + by) / 2, length: Math.hypot(ax - bx, ay - by) || 1 };
  }

  pinch() {
    const before = this.pinched;
    if (this.fingers.size < 2 || !before) return;
    const now = this.spread();
    this.camera.pan(now.x - before.x, now.y - before.y);
    this.camera.zoomAt(now.length / before.length, now.x, now.y);
    this.pinched = now;
    this.on.moved();
  }

  /** @param {WheelEvent} event */
  wheel(event) {
    event.preventDefault();
    const pixels = event.deltaY * (event.deltaMode === 1 ? 16 : event.deltaMode === 2 ? 400 : 1);
    const factor = Math.exp(-Math.min(Math.max(pixels, -240), 240) * (event.ctrlKey ? 0.01 : 0.002));
    this.camera.zoomAt(factor, ...this.at(event));
    this.camera.fitted = false;
    this.on.moved();
    this.on.rested();
  }

  /** @param {MouseEvent} event */
  double(event) {
    this.on.doubled(...this.at(event), event.shiftKey);
  }

  /** @param {KeyboardEvent} event */
  key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const { camera } = this;
    const [cx, cy] = [camera.width / 2, camera.height / 2];
    const far = event.shiftKey ? 3 * STEP : STEP;
    /** @type {Record<string, () => void>} */
    const actions = {
      ArrowLeft: () => camera.pan(far, 0),
      ArrowRight: () => camera.pan(-far, 0),
      ArrowUp: () => camera.pan(0, far),
      ArrowDown: () => camera.pan(0, -far),
      "+": () => camera.zoomAt(1.4, cx, cy),
      "=": () => camera.zoomAt(1.4, cx, cy),
      "-": () => camera.zoomAt(1 / 1.4, cx, cy),
      0: () => camera.fit(),
    };
    if (event.key === "Escape") this.on.cleared();
    else if (event.key === "Enter") this.on.opened();
    else if (actions[event.key]) {
      actions[event.key]();
      this.on.moved();
      this.on.rested();
    } else return;
    event.preventDefault();
    event.stopPropagation();
  }
}
