// The view: the world point in the middle of the canvas and CSS pixels per unit of the world. The world's y points up.

const MARGIN = 26,
  ABOVE = 58; // pixels around the map; the controls lie above
const CLOSEST = 4000,
  FARTHEST = 0.4; // times the zoom that shows all

export class Camera {
  /** @param {Box} bounds of all that can be seen */
  constructor(bounds) {
    this.bounds = bounds;
    this.width = this.height = 1;
    this.zoom = this.whole = 1;
    this.x = this.y = 0;
    this.fitted = true;
  }

  /** @param {number} width @param {number} height */
  resize(width, height) {
    const span = this.span;
    this.width = Math.max(width, 1);
    this.height = Math.max(height, 1);
    const [x0, y0, x1, y1] = this.bounds;
    const wide = Math.max(this.width - 2 * MARGIN, this.width / 2),
      high = Math.max(this.height - MARGIN - ABOVE, this.height / 2);
    this.whole = Math.min(wide / (x1 - x0 || 1), high / (y1 - y0 || 1));
    if (this.fitted) this.fit();
    else this.span = span;
  }

  /** Show everything. */
  fit() {
    const [x0, y0, x1, y1] = this.bounds;
    this.x = (x0 + x1) / 2;
    this.zoom = this.whole;
    this.y = (y0 + y1) / 2 + (ABOVE - MARGIN) / 2 / this.zoom;
    this.fitted = true;
  }

  /** World units across the shorter side: stored in links, so that a view is the same on every screen. */
  get span() {
    return Math.min(this.width, this.height) / this.zoom;
  }

  set span(units) {
    this.zoom = this.allowed(Math.min(this.width, this.height) / units);
  }

  /** @param {number} zoom */
  allowed(zoom) {
    return Math.min(Math.max(zoom, this.whole * FARTHEST), this.whole * CLOSEST);
  }

  /** @param {number} x */
  screenX(x) {
    return (x - this.x) * this.zoom + this.width / 2;
  }

  /** @param {number} y */
  screenY(y) {
    return this.height / 2 - (y - this.y) * this.zoom;
  }

  /** @param {number} sx */
  worldX(sx) {
    return (sx - this.width / 2) / this.zoom + this.x;
  }

  /** @param {number} sy */
  worldY(sy) {
    return (this.height / 2 - sy) / this.zoom + this.y;
  }

  /** Move by screen pixels; the middle never leaves the map. @param {number} dx @param {number} dy */
  pan(dx, dy) {
    const [x0, y0, x1, y1] = this.bounds;
    this.x = Math.min(Math.max(this.x - dx / this.zoom, x0), x1);
    this.y = Math.min(Math.max(this.y + dy / this.zoom, y0), y1);
    this.fitted = false;
  }

  /**
   * Zoom in (factor > 1) or out about the screen point (sx, sy).
   * @param {number} factor @param {number} sx @param {number} sy
   */
  zoomAt(factor, sx, sy) {
    const x = this.worldX(sx),
      y = this.worldY(sy);
    this.zoom = this.allowed(this.zoom * factor);
    this.x = x - (sx - this.width / 2) / this.zoom;
    this.y = y + (sy - this.height / 2) / this.zoom;
    this.pan(0, 0);
  }

  /** Show a box of the world. @param {number} x0 @param {number} y0 @param {number} x1 @param {number} y1 */
  show(x0, y0, x1, y1) {
    this.zoom = this.allowed(
      Math.min(this.width / (Math.abs(x1 - x0) || 1e-9), this.height / (Math.abs(y1 - y0) || 1e-9)),
    );
    this.x = (x0 + x1) / 2;
    this.y = (y0 + y1) / 2;
    this.pan(0, 0);
  }

  /** The visible box of the world. @returns {Box} */
  get box() {
    return [this.worldX(0), this.worldY(this.height), this.worldX(this.width), this.worldY(0)];
  }

  /** "x,y,span" for an address; "" when everything is shown. */
  get text() {
    return this.fitted ? "" : [this.x, this.y, this.span].map((v) => Number(v.toPrecision(5))).join(",");
  }

  set text(given) {
    const [x, y, span] = (given || "").split(",").map(Number);
    if (!Number.isFinite(x) || !Number.isFinite(y) || !(span > 0)) {
      this.fit();
      return;
    }
    this.x = x;
    this.y = y;
    this.span = span;
    this.pan(0, 0);
  }
}
