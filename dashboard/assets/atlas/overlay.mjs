// Two canvases over the points. One changes with the view: labels, the selection's outline, the chosen point
// and its true neighbours. The live one changes with the pointer: a ring, the region under it, a lasso being drawn.

import { contextOf } from "../dom.mjs";
import { drawCells } from "./cells.mjs";
import { drawLabels, shownLabels } from "./labels.mjs";

export class Overlay {
  /** @param {HTMLCanvasElement} marks @param {HTMLCanvasElement} live @param {Camera} camera */
  constructor(marks, live, camera) {
    this.marks = contextOf(marks);
    this.live = contextOf(live);
    this.camera = camera;
    /** @type {ShownLabel[]} */
    this.shown = [];
  }

  /** @param {number} ratio */
  resize(ratio) {
    for (const context of [this.marks, this.live]) {
      context.canvas.width = Math.round(this.camera.width * ratio);
      context.canvas.height = Math.round(this.camera.height * ratio);
      context.setTransform(ratio, 0, 0, ratio, 0, 0);
    }
  }

  /** @param {CanvasRenderingContext2D} context */
  clear(context) {
    context.clearRect(0, 0, this.camera.width, this.camera.height);
  }

  /**
   * `scene`: theme, labels, outline (world corners), hits, chosen and near (points as [x, y]).
   * @param {MarkedScene} scene
   */
  drawMarks(scene) {
    const { marks, camera } = this;
    this.clear(marks);
    if (scene.outline) this.outline(marks, scene.outline, scene.theme);
    for (const [x, y] of scene.hits) this.glow(x, y, scene.radius, scene.theme);
    if (scene.chosen) this.neighbours(scene.chosen, scene.near, scene.theme);
    if (scene.cells) drawCells(marks, scene.cells, camera, scene.theme);
    this.shown = scene.labels ? shownLabels(scene.labels, camera) : [];
    drawLabels(marks, this.shown, scene.theme);
  }

  /** @param {CanvasRenderingContext2D} context @param {Corners} corners @param {AtlasTheme} theme */
  outline(context, corners, theme) {
    this.trace(context, corners);
    context.setLineDash([5, 4]);
    context.lineWidth = 1.5;
    context.strokeStyle = theme.accent;
    context.stroke();
    context.setLineDash([]);
  }

  /** @param {CanvasRenderingContext2D} context @param {Corners} corners */
  trace(context, corners) {
    context.beginPath();
    for (let i = 0; i < corners.length; i += 2) {
      context.lineTo(this.camera.screenX(corners[i]), this.camera.screenY(corners[i + 1]));
    }
    context.closePath();
  }

  /** @param {Point} chosen @param {Point[]} near @param {AtlasTheme} theme */
  neighbours(chosen, near, theme) {
    const { marks, camera } = this;
    const [cx, cy] = [camera.screenX(chosen[0]), camera.screenY(chosen[1])];
    marks.strokeStyle = marks.fillStyle = theme.opposite;
    marks.globalAlpha = 0.55;
    marks.lineWidth = 1;
    for (const [x, y] of near) {
      marks.beginPath();
      marks.moveTo(cx, cy);
      marks.lineTo(camera.screenX(x), camera.screenY(y));
      marks.stroke();
    }
    marks.globalAlpha = 1;
    for (const [x, y] of near) this.ring(marks, x, y, 3, theme.opposite, theme.surface);
    this.ring(marks, ...chosen, 7, theme.opposite);
  }

  /** A light around a point. @param {number} x @param {number} y @param {number} radius @param {AtlasTheme} theme */
  glow(x, y, radius, theme) {
    this.marks.globalAlpha = 0.3;
    for (const wider of [3, 5, 7, 9, 11]) this.ring(this.marks, x, y, radius + wider, theme.accent); // 2 pixels each
    this.marks.globalAlpha = 1;
    this.ring(this.marks, x, y, radius + 2, theme.accent);
  }

  /**
   * @param {CanvasRenderingContext2D} context @param {number} x @param {number} y @param {number} radius
   * @param {string} colour @param {string} [inside]
   */
  ring(context, x, y, radius, colour, inside) {
    context.beginPath();
    context.arc(this.camera.screenX(x), this.camera.screenY(y), radius, 0, 2 * Math.PI);
    if (inside) {
      context.fillStyle = colour;
      context.fill();
    }
    context.lineWidth = inside ? 1 : 2;
    context.strokeStyle = inside ?? colour;
    context.stroke();
  }

  /** The label at a position on the screen, if any. @param {number} x @param {number} y */
  labelAt(x, y) {
    return (
      this.shown.find((s) => Math.abs(s.x - x) < s.label.width / 2 && Math.abs(s.y - y) < s.label.height / 2)?.label ??
      null
    );
  }

  /**
   * `hovered`: [x, y] in the world or null; `region`: corners of its outline; `path`: screen corners being drawn.
   * @param {LiveScene} given
   */
  drawLive({ hovered, region, path, closed, theme }) {
    const { live } = this;
    this.clear(live);
    if (region?.length) {
      this.trace(live, region);
      live.fillStyle = theme.tint;
      live.fill();
      live.lineWidth = 1.2;
      live.strokeStyle = theme.text;
      live.globalAlpha = 0.7;
      live.stroke();
      live.globalAlpha = 1;
    }
    if (hovered) this.ring(live, ...hovered, 6, theme.text);
    if (!path) return;
    live.beginPath();
    for (let i = 0; i < path.length; i += 2) live.lineTo(path[i], path[i + 1]);
    if (closed) live.closePath();
    live.fillStyle = theme.tint;
    live.fill();
    live.lineWidth = 1.5;
    live.strokeStyle = theme.accent;
    live.stroke();
  }
}
