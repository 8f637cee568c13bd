// WebGL2 helpers: one program for points, one for a picture over the whole canvas.

import { SIZE_STEPS, sizeFactor } from "./looks.mjs";

const POINTS = [
  `#version 300 es
  in vec2 place; in uint code; in uint size;
  uniform vec4 view; uniform float diameter; uniform float factors[${SIZE_STEPS}]; uniform int pass;
  uniform sampler2D colours;
  flat out vec4 colour; flat out float width;
  void main() {
    gl_Position = vec4(place * view.xy + view.zw, 0.0, 1.0);
    width = diameter * factors[int(size)];
    gl_PointSize = width + 1.0;
    colour = texelFetch(colours, ivec2(int(code), 0), 0);
    bool dimmed = code >= 128u;
    if (code == 255u || (pass == 0 && !dimmed) || (pass == 1 && dimmed)) gl_Position = vec4(2.0, 2.0, 2.0, 1.0);
  }`,
  `#version 300 es
  precision mediump float;
  flat in vec4 colour; flat in float width; out vec4 drawn;
  void main() {
    float away = length(gl_PointCoord - 0.5) * (width + 1.0);
    drawn = colour * clamp(width * 0.5 + 0.5 - away, 0.0, 1.0);
  }`,
];
const PICTURE = [
  `#version 300 es
  out vec2 at;
  void main() {
    at = vec2(gl_VertexID & 1, gl_VertexID >> 1);
    gl_Position = vec4(at * 2.0 - 1.0, 0.0, 1.0);
  }`,
  `#version 300 es
  precision mediump float;
  in vec2 at; uniform sampler2D picture; out vec4 drawn;
  void main() { drawn = texture(picture, vec2(at.x, 1.0 - at.y)); }`,
];
export const PLACE = 0,
  CODE = 1,
  SIZE = 2;

/** A WebGL2 context, or null. */
export function context(canvas) {
  const wanted = {
    antialias: false,
    depth: false,
    alpha: true,
    premultipliedAlpha: true,
    preserveDrawingBuffer: false,
  };
  return canvas.getContext("webgl2", wanted);
}

/** True if WebGL runs in software on the CPU, where every point is expensive. */
export function isSoftware(gl) {
  const extension = gl.getExtension("WEBGL_debug_renderer_info");
  const name = String(gl.getParameter(extension ? extension.UNMASKED_RENDERER_WEBGL : gl.RENDERER));
  return /swiftshader|llvmpipe|softpipe|software|basic render/i.test(name);
}

export function pointProgram(gl) {
  const program = link(gl, POINTS, { place: PLACE, code: CODE, size: SIZE });
  const at = (name) => gl.getUniformLocation(program, name);
  gl.useProgram(program);
  gl.uniform1fv(
    at("factors"),
    Array.from({ length: SIZE_STEPS }, (_, i) => sizeFactor(i)),
  );
  return { program, view: at("view"), diameter: at("diameter"), pass: at("pass") };
}

export const pictureProgram = (gl) => link(gl, PICTURE, {});

export function texture(gl) {
  const made = gl.createTexture();
  gl.bindTexture(gl.TEXTURE_2D, made);
  for (const side of [gl.TEXTURE_WRAP_S, gl.TEXTURE_WRAP_T]) gl.texParameteri(gl.TEXTURE_2D, side, gl.CLAMP_TO_EDGE);
  for (const filter of [gl.TEXTURE_MIN_FILTER, gl.TEXTURE_MAG_FILTER])
    gl.texParameteri(gl.TEXTURE_2D, filter, gl.NEAREST);
  return made;
}

function link(gl, [vertex, fragment], places) {
  const program = gl.createProgram();
  for (const [kind, text] of [
    [gl.VERTEX_SHADER, vertex],
    [gl.FRAGMENT_SHADER, fragment],
  ]) {
    const shader = gl.createShader(kind);
    gl.shaderSource(shader, text);
    gl.compileShader(shader);
    gl.attachShader(program, shader);
  }
  for (const [name, place] of Object.entries(places)) gl.bindAttribLocation(program, place, name);
  gl.linkProgram(program);
  if (!gl.getProgramParameter(program, gl.LINK_STATUS) && !gl.isContextLost()) {
    throw new Error(`WebGL2 did not take a program: ${gl.getProgramInfoLog(program)}`);
  }
  return program;
}
