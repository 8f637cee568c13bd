// What the views of the prompt page share: elements whose texts are texts, colours of the scheme, requests, canvases.

import { along } from "../atlas/looks.mjs";
import { byId, contextOf, element, visible } from "../dom.mjs";
import { json, messageOf, Refusal } from "../http.mjs";

/** @param {string} text @param {number} [limit] */
export const spaced = (text, limit) => visible(text, limit).replace(/^ /, "␣");

/** @returns {PromptTheme} */
export function colours() {
  const known = JSON.parse(byId("prompt-views").dataset.colours ?? "{}");
  return known[document.documentElement.dataset.scheme === "dark" ? "dark" : "light"];
}

/** 256 colours [r, g, b] along the stops of a scale. @param {Stops} stops */
export function table(stops) {
  return Array.from({ length: 256 }, (_, n) => /** @type {Rgb} */ (along(stops, n / 255).map(Math.round)));
}

/** The same colours by the square root: small values can be told apart. @param {Rgb[]} lut */
export const rooted = (lut) => lut.map((_, n) => lut[Math.round(255 * Math.sqrt(n / 255))]);

/** @param {Rgb} given */
export const css = ([r, g, b]) => `rgb(${r},${g},${b})`;

/**
 * A canvas of this size in CSS pixels, sharp on dense screens.
 * @param {HTMLCanvasElement} canvas @param {number} width @param {number} height
 */
export function fit(canvas, width, height) {
  const dense = window.devicePixelRatio || 1;
  canvas.width = Math.round(width * dense);
  canvas.height = Math.round(height * dense);
  canvas.style.width = `${width}px`;
  canvas.style.height = `${height}px`;
  const context = contextOf(canvas);
  context.setTransform(dense, 0, 0, dense, 0, 0);
  context.clearRect(0, 0, width, height);
  return context;
}

/**
 * A picture of bytes (0 to 255) through a colour table, one pixel each; `hidden(x, y)` leaves one transparent.
 * @param {ArrayLike<number>} bytes @param {number} width @param {number} height @param {Rgb[]} lut
 * @param {(x: number, y: number) => boolean} [hidden]
 */
export function picture(bytes, width, height, lut, hidden) {
  const canvas = document.createElement("canvas");
  canvas.width = width;
  canvas.height = height;
  const context = contextOf(canvas),
    image = context.createImageData(width, height);
  for (let i = 0; i < width * height; i++) {
    if (hidden?.(i % width, Math.floor(i / width))) continue;
    const [r, g, b] = lut[bytes[i]];
    image.data.set([r, g, b, 255], 4 * i);
  }
  context.putImageData(image, 0, 0);
  return canvas;
}

/** @param {Picture} picture */
export function bytes({ base64 }) {
  const text = atob(base64),
    found = new Uint8Array(text.length);
  for (let i = 0; i < text.length; i++) found[i] = text.charCodeAt(i);
  return found;
}

/**
 * Ask an act of the model; a request that was replaced or given up becomes null. Throws `Refusal`.
 * @template {keyof PromptAnswers} K
 * @param {K} act @param {unknown} body @param {AbortSignal} [signal] @returns {Promise<PromptAnswers[K] | null>}
 */
export async function ask(act, body, signal) {
  try {
    return /** @type {PromptAnswers[K]} */ (await json(`/api/act/${act}`, body, { signal }));
  } catch (error) {
    if (aborted(error) || (error instanceof Refusal && error.status === 409)) return null;
    throw error;
  }
}

/** @param {unknown} error */
export const aborted = (error) => error instanceof DOMException && error.name === "AbortError";

/**
 * Call after a pause: only the last of several calls counts.
 * @template {unknown[]} A @param {number} milliseconds @param {(...given: A) => void} call
 */
export function settled(milliseconds, call) {
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  let timer;
  return (/** @type {A} */ ...given) => {
    clearTimeout(timer);
    timer = setTimeout(() => call(...given), milliseconds);
  };
}

/** @param {unknown} error */
export function failed(error) {
  return element("div", { class: "wb-notice wb-notice-error", role: "alert" }, messageOf(error));
}

/** @param {number} p */
export const percent = (p) => (p < 0.0005 ? "<0.1%" : `${(100 * p).toFixed(1)}%`);

/**
 * Let the mouse and the arrow keys choose a cell of a canvas: `at` says which one lies under an event, `over` is called
 * with it, `choose` with one that is clicked, `move` with the steps (right, up) of a key.
 * @template T
 * @param {HTMLCanvasElement} canvas
 * @param {{ at(event: MouseEvent): T | null, over(cell: T | null): void, choose(cell: T): void,
 *   move(right: number, up: number): void }} on
 */
export function pointing(canvas, { at, over, choose, move }) {
  canvas.addEventListener("mousemove", (event) => over(at(event)));
  canvas.addEventListener("mouseleave", () => over(null));
  canvas.addEventListener("click", (event) => {
    const cell = at(event);
    if (cell) choose(cell);
  });
  canvas.addEventListener("keydown", (event) => {
    const step = { ArrowRight: [1, 0], ArrowLeft: [-1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] }[event.key];
    if (!step) return;
    event.preventDefault();
    event.stopPropagation();
    move(step[0], step[1]);
  });
}

/** A whole number from 0 to a last one. @param {number} value @param {number} last */
export const within = (value, last) => Math.min(last, Math.max(0, value));
