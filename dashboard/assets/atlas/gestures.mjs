// Gestures: drag to move, wheel to zoom about the pointer, shift-drag for a lasso, alt-drag for a rectangle, a mode for
// each, two fingers, and keys. This module moves the camera itself and reports everything else through `on`.

const CLICK = 4; // largest movement in pixels that still counts as a click
const STEP = 80;

export class Gestures {
  /** @param {object} on moved, rested, hovered, left, clicked, doubled, drawing, drawn, cleared, opened */
  constructor(target, camera, on) {
    this.target = target;
    this.camera = camera;
    this.on = on;
    this.mode = "pan";
    this.fingers = new Map();
    this.drag = null;
    const listen = (name, handle) => target.addEventListener(name, handle.bind(this), { passive: false });
    listen("pointerdown", this.down);
    listen("pointermove", this.move);
    listen("pointerup", this.up);
    listen("pointercancel", this.cancel);
    listen("pointerleave", () => this.on.left());
    listen("wheel", this.wheel);
    listen("dblclick", this.double);
    listen("keydown", this.key);
    listen("contextmenu", (event) => this.drag && event.preventDefault());
  }

  at(event) {
    const box = this.target.getBoundingClientRect();
    return [event.clientX - box.left, event.clientY - box.top];
  }

  down(event) {
    if (event.button !== 0) return;
    this.target.setPointerCapture(event.pointerId);
    const [x, y] = this.at(event);
    this.fingers.set(event.pointerId, [x, y]);
    if (this.fingers.size === 2) this.drag = { kind: "pinch", spread: this.spread() };
    else
      this.drag = {
        kind: this.kindOf(event),
        x,
        y,
        startX: x,
        startY: y,
        far: false,
        path: [x, y],
        add: event.ctrlKey || event.metaKey,
      };
  }

  kindOf(event) {
    if (event.shiftKey) return this.mode === "rectangle" ? "rectangle" : "lasso";
    if (event.altKey) return "rectangle";
    return this.mode;
  }

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

  outline({ kind, path, startX, startY }, x, y) {
    return kind === "lasso" ? path : [startX, startY, x, startY, x, y, startX, y];
  }

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
    if (this.fingers.size < 2) return;
    const before = this.drag.spread,
      now = this.spread();
    this.camera.pan(now.x - before.x, now.y - before.y);
    this.camera.zoomAt(now.length / before.length, now.x, now.y);
    this.drag.spread = now;
    this.on.moved();
  }

  wheel(event) {
    event.preventDefault();
    const pixels = event.deltaY * (event.deltaMode === 1 ? 16 : event.deltaMode === 2 ? 400 : 1);
    const factor = Math.exp(-Math.min(Math.max(pixels, -240), 240) * (event.ctrlKey ? 0.01 : 0.002));
    this.camera.zoomAt(factor, ...this.at(event));
    this.camera.fitted = false;
    this.on.moved();
    this.on.rested();
  }

  double(event) {
    this.on.doubled(...this.at(event), event.shiftKey);
  }

  key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const { camera } = this;
    const [cx, cy] = [camera.width / 2, camera.height / 2];
    const far = event.shiftKey ? 3 * STEP : STEP;
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
