// Draws the points with WebGL2. With a GPU: one buffer of points in a scattered order, of which any prefix is an even
// sample, so that thinning while moving needs no second buffer. Without one: painted by the CPU (pixels.mjs) and shown as
// one texture. Both draw fewer points while moving when frames get slow, and all points at rest.

import { Pixels } from "./pixels.mjs";
import { CODE, context, isSoftware, PLACE, pictureProgram, pointProgram, SIZE, texture } from "./webgl.mjs";

const SLOW = 45; // milliseconds per frame above which fewer points are drawn while moving
const FEWEST = 40000;

export class Renderer {
  /** @param {"auto"|"points"|"pixels"} how to draw: "points" by the GPU, "pixels" by the CPU, "auto" by what is available */
  constructor(canvas, how = "auto") {
    this.canvas = canvas;
    this.gl = context(canvas);
    if (!this.gl) throw new Error("no WebGL2");
    this.how = how === "auto" ? (isSoftware(this.gl) ? "pixels" : "points") : how;
    this.points = null;
    this.wholeCost = 0; // milliseconds to draw all points, as last measured
    canvas.addEventListener("webglcontextlost", (event) => event.preventDefault());
    canvas.addEventListener("webglcontextrestored", () => {
      this.start();
      if (this.points) this.load(this.points);
      this.onRestored?.();
    });
    this.start();
  }

  start() {
    const { gl } = this;
    gl.enable(gl.BLEND);
    gl.blendFunc(gl.ONE, gl.ONE_MINUS_SRC_ALPHA);
    this.picture = texture(gl);
    this.pictureSize = "";
    this.pictureProgram = pictureProgram(gl);
    if (this.how === "pixels") {
      this.pixels = new Pixels();
    } else {
      this.colours = texture(gl);
      this.program = pointProgram(gl);
      this.buffers = { place: gl.createBuffer(), code: gl.createBuffer(), size: gl.createBuffer() };
    }
  }

  /** Set the points: `{xy, codes, sizes}`. The caller owns the arrays and calls `recode` after changing codes or sizes. */
  load(points) {
    this.points = points;
    if (this.how === "pixels") return;
    const n = points.codes.length;
    this.scatter = scattered(n);
    const placed = new Float32Array(2 * n);
    for (let k = 0, i = 0; k < n; k++, i = (i + this.scatter) % n) {
      placed[2 * k] = points.xy[2 * i];
      placed[2 * k + 1] = points.xy[2 * i + 1];
    }
    const { gl, buffers } = this;
    gl.bindBuffer(gl.ARRAY_BUFFER, buffers.place);
    gl.bufferData(gl.ARRAY_BUFFER, placed, gl.STATIC_DRAW);
    gl.enableVertexAttribArray(PLACE);
    gl.vertexAttribPointer(PLACE, 2, gl.FLOAT, false, 0, 0);
    this.recode();
  }

  recode() {
    if (this.how === "pixels") return;
    const { codes, sizes } = this.points;
    this.attribute(CODE, this.buffers.code, codes);
    if (sizes) this.attribute(SIZE, this.buffers.size, sizes);
    else {
      this.gl.disableVertexAttribArray(SIZE);
      this.gl.vertexAttribI4ui(SIZE, 3, 0, 0, 0);
    }
  }

  attribute(place, buffer, bytes) {
    const { gl } = this,
      n = bytes.length;
    const moved = new Uint8Array(n);
    for (let k = 0, i = 0; k < n; k++, i = (i + this.scatter) % n) moved[k] = bytes[i];
    gl.bindBuffer(gl.ARRAY_BUFFER, buffer);
    gl.bufferData(gl.ARRAY_BUFFER, moved, gl.DYNAMIC_DRAW);
    gl.enableVertexAttribArray(place);
    gl.vertexAttribIPointer(place, 1, gl.UNSIGNED_BYTE, 0, 0);
  }

  resize(width, height) {
    if (this.canvas.width === width && this.canvas.height === height) return;
    this.canvas.width = width;
    this.canvas.height = height;
    this.gl.viewport(0, 0, width, height);
  }

  /**
   * Draw now. `scene`: camera, colours (the table), radius in CSS pixels, grid or null, selecting; `moving`: may draw
   * fewer points. Gives the fraction of the points that was drawn.
   */
  draw(scene, moving) {
    if (this.gl.isContextLost()) return 1;
    if (this.how === "pixels") return this.paint(scene, moving);
    const share = this.drawPoints(scene, moving);
    this.time(share);
    return share;
  }

  paint(scene, moving) {
    const { canvas, points, pixels } = this;
    const { camera, grid } = scene;
    pixels.resize(canvas.width, canvas.height);
    const ratio = canvas.width / camera.width;
    const scale = camera.zoom * ratio;
    const view = [scale, -scale, canvas.width / 2 - camera.x * scale, canvas.height / 2 + camera.y * scale];
    const box = camera.box;
    const seen = grid ? grid.count(...box) : points.codes.length;
    const every = moving && this.wholeCost > SLOW ? Math.min(16, Math.ceil(this.wholeCost / SLOW)) : 1;
    const near = grid && seen < 0.4 * points.codes.length;
    const started = performance.now();
    pixels.add(points, scene.colours, view, scene.radius * ratio, {
      every,
      emphasis: scene.selecting ? 8 : 1,
      grid: near ? grid : null,
      box,
    });
    const bytes = pixels.develop();
    this.wholeCost = (performance.now() - started) * every;
    this.show(bytes);
    return 1 / every;
  }

  show(bytes) {
    const { gl, canvas } = this;
    const size = `${canvas.width} ${canvas.height}`;
    gl.bindTexture(gl.TEXTURE_2D, this.picture);
    if (size !== this.pictureSize)
      gl.texImage2D(gl.TEXTURE_2D, 0, gl.RGBA, canvas.width, canvas.height, 0, gl.RGBA, gl.UNSIGNED_BYTE, bytes);
    else gl.texSubImage2D(gl.TEXTURE_2D, 0, 0, 0, canvas.width, canvas.height, gl.RGBA, gl.UNSIGNED_BYTE, bytes);
    this.pictureSize = size;
    gl.useProgram(this.pictureProgram);
    gl.disable(gl.BLEND);
    gl.drawArrays(gl.TRIANGLE_STRIP, 0, 4);
    gl.enable(gl.BLEND);
  }

  drawPoints(scene, moving) {
    const { gl, canvas, program } = this;
    const { camera } = scene;
    const n = this.points.codes.length;
    const drawn =
      moving && this.wholeCost > SLOW ? Math.min(n, Math.max(FEWEST, Math.floor((n * SLOW) / this.wholeCost))) : n;
    gl.clearColor(0, 0, 0, 0);
    gl.clear(gl.COLOR_BUFFER_BIT);
    gl.useProgram(program.program);
    this.setColours(scene.colours);
    const sx = (2 * camera.zoom) / camera.width,
      sy = (2 * camera.zoom) / camera.height;
    gl.uniform4f(program.view, sx, sy, -camera.x * sx, -camera.y * sy);
    const stand = Math.min(2, (n / drawn) ** 0.2); // drawn points grow to make up for the omitted
    gl.uniform1f(program.diameter, (2 * scene.radius * stand * canvas.width) / camera.width);
    for (const pass of scene.selecting ? [0, 1] : [2]) {
      gl.uniform1i(program.pass, pass);
      gl.drawArrays(gl.POINTS, 0, drawn);
    }
    return drawn / n;
  }

  setColours(colours) {
    const { gl } = this;
    const bytes = new Uint8Array(colours.length);
    for (let c = 0; c < colours.length; c += 4) {
      for (let j = 0; j < 3; j++) bytes[c + j] = colours[c + j] * colours[c + 3];
      bytes[c + 3] = 255 * colours[c + 3];
    }
    gl.bindTexture(gl.TEXTURE_2D, this.colours);
    gl.texImage2D(gl.TEXTURE_2D, 0, gl.RGBA, 256, 1, 0, gl.RGBA, gl.UNSIGNED_BYTE, bytes);
  }

  /** Time that the GPU took, known some frames later. */
  time(share) {
    if (this.fence) return;
    const { gl } = this,
      started = performance.now();
    const fence = gl.fenceSync(gl.SYNC_GPU_COMMANDS_COMPLETE, 0);
    this.fence = fence;
    gl.flush();
    const look = () => {
      if (this.fence !== fence || gl.isContextLost()) return;
      if (gl.getSyncParameter(fence, gl.SYNC_STATUS) !== gl.SIGNALED) return void setTimeout(look, 4);
      this.wholeCost = (performance.now() - started) / share;
      gl.deleteSync(fence);
      this.fence = null;
    };
    setTimeout(look, 4);
  }

  close() {
    this.gl.getExtension("WEBGL_lose_context")?.loseContext();
    this.points = null;
  }
}

/** A step coprime to n near n times the golden section: 0, s, 2s, ... (mod n) visits all, spread evenly from the start. */
export function scattered(n) {
  const divisor = (a, b) => (b ? divisor(b, a % b) : a);
  let step = Math.max(1, Math.round(n * 0.6180339887));
  while (divisor(step, n) !== 1) step++;
  return step;
}
