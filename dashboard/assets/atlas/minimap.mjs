// The whole map in a corner, with the visible box. Press or drag on it to move the view.

import { contextOf, element } from "../dom.mjs";
import { rgb } from "./looks.mjs";

const WIDTH = 148,
  HEIGHT = 104;

export class Minimap {
  /** @type {Density | null} */
  density = null;
  /** @type {HTMLCanvasElement | null} */
  picture = null;
  /** @type {AtlasTheme} */
  theme;

  /** @param {HTMLElement} root @param {Camera} camera @param {() => void} moved */
  constructor(root, camera, moved) {
    this.camera = camera;
    this.canvas = element("canvas", {
      class: "atlas-minimap",
      "aria-hidden": "true",
      width: 2 * WIDTH,
      height: 2 * HEIGHT,
    });
    root.append(this.canvas);
    /** @param {PointerEvent} event */
    const go = (event) => {
      if (!this.density || !(event.buttons & 1)) return;
      const box = this.canvas.getBoundingClientRect();
      const { scale, x, y } = this.frame(this.density);
      const [x0, , , y1] = this.density.bounds;
      camera.x = x0 + (event.clientX - box.left - x) / scale;
      camera.y = y1 - (event.clientY - box.top - y) / scale;
      camera.pan(0, 0);
      moved();
    };
    this.canvas.addEventListener("pointerdown", (event) => {
      this.canvas.setPointerCapture(event.pointerId);
      go(event);
    });
    this.canvas.addEventListener("pointermove", go);
  }

  /** @param {Density} density @param {AtlasTheme} theme */
  show(density, theme) {
    this.density = density;
    this.theme = theme;
    const image = density.picture(rgb(theme.muted));
    this.picture = Object.assign(document.createElement("canvas"), { width: image.width, height: image.height });
    contextOf(this.picture).putImageData(image, 0, 0);
  }

  /** @param {Density} density */
  frame(density) {
    const [x0, y0, x1, y1] = density.bounds;
    const scale = Math.min((WIDTH - 8) / (x1 - x0), (HEIGHT - 8) / (y1 - y0));
    return {
      scale,
      x: (WIDTH - scale * (x1 - x0)) / 2,
      y: (HEIGHT - scale * (y1 - y0)) / 2,
      wide: scale * (x1 - x0),
      high: scale * (y1 - y0),
    };
  }

  /** @param {boolean} on */
  draw(on) {
    this.canvas.hidden = !on || this.camera.width < 520;
    if (!this.density || !this.picture || this.canvas.hidden) return;
    const { scale, x, y, wide, high } = this.frame(this.density);
    const [x0, , , y1] = this.density.bounds;
    const context = contextOf(this.canvas);
    context.setTransform(2, 0, 0, 2, 0, 0);
    context.clearRect(0, 0, WIDTH, HEIGHT);
    context.drawImage(this.picture, x, y, wide, high);
    const [bx0, by0, bx1, by1] = this.camera.box;
    const left = Math.max(x + (bx0 - x0) * scale, 0.75),
      top = Math.max(y + (y1 - by1) * scale, 0.75);
    const right = Math.min(x + (bx1 - x0) * scale, WIDTH - 0.75),
      bottom = Math.min(y + (y1 - by0) * scale, HEIGHT - 0.75);
    context.strokeStyle = this.theme.accent;
    context.lineWidth = 1.5;
    context.strokeRect(left, top, Math.max(right - left, 3), Math.max(bottom - top, 3));
  }
}
