// What the views of the prompt page share: elements whose texts are texts, colours of the scheme, requests, canvases.

import { element, visible } from "../dom.mjs";
import { json } from "../http.mjs";

export const spaced = (text, limit) => visible(text, limit).replace(/^ /, "␣");

export function colours() {
  const holder = document.getElementById("prompt-views");
  const known = JSON.parse(holder.getAttribute("data-colours"));
  return known[document.documentElement.dataset.scheme === "dark" ? "dark" : "light"];
}

// 256 colours [r, g, b] along the stops of a scale.
export function table(stops) {
  const rgb = stops.map(([at, hex]) => [at, [1, 3, 5].map((i) => parseInt(hex.slice(i, i + 2), 16))]);
  return Array.from({ length: 256 }, (_, n) => {
    const x = n / 255,
      above = Math.max(
        1,
        rgb.findIndex(([at]) => at >= x),
      );
    const [low, from] = rgb[above - 1],
      [high, to] = rgb[above];
    const share = Math.min(1, Math.max(0, (x - low) / (high - low)));
    return from.map((value, i) => Math.round(value + share * (to[i] - value)));
  });
}

export const css = ([r, g, b]) => `rgb(${r},${g},${b})`;

// A canvas of this size in CSS pixels, sharp on dense screens.
export function fit(canvas, width, height) {
  const dense = window.devicePixelRatio || 1;
  canvas.width = Math.round(width * dense);
  canvas.height = Math.round(height * dense);
  canvas.style.width = `${width}px`;
  canvas.style.height = `${height}px`;
  const context = canvas.getContext("2d");
  context.setTransform(dense, 0, 0, dense, 0, 0);
  context.clearRect(0, 0, width, height);
  return context;
}

// A picture of bytes (0 to 255) through a colour table, one pixel each; `hidden(x, y)` leaves one transparent.
export function picture(bytes, width, height, lut, hidden) {
  const canvas = document.createElement("canvas");
  canvas.width = width;
  canvas.height = height;
  const context = canvas.getContext("2d"),
    image = context.createImageData(width, height);
  for (let i = 0; i < width * height; i++) {
    if (hidden?.(i % width, Math.floor(i / width))) continue;
    const [r, g, b] = lut[bytes[i]];
    image.data.set([r, g, b, 255], 4 * i);
  }
  context.putImageData(image, 0, 0);
  return canvas;
}

export function bytes(base64) {
  const text = atob(base64),
    found = new Uint8Array(text.length);
  for (let i = 0; i < text.length; i++) found[i] = text.charCodeAt(i);
  return found;
}

/** Ask a route; a request that was replaced or given up becomes null. Throws `Refusal`. */
export async function ask(what, body, signal) {
  try {
    return await json(`/prompt-data/${what}`, body, { signal });
  } catch (error) {
    if (error.name === "AbortError" || error.status === 409) return null;
    throw error;
  }
}

// Call after a pause: only the last of several calls counts.
export function settled(milliseconds, call) {
  let timer = 0;
  return (...given) => {
    clearTimeout(timer);
    timer = setTimeout(() => call(...given), milliseconds);
  };
}

export function failed(error) {
  return element("div", { class: "wb-notice wb-notice-error", role: "alert" }, error.message);
}

export const percent = (p) => (p < 0.0005 ? "<0.1%" : `${(100 * p).toFixed(1)}%`);

// A menu with a name for screen readers.
export function menu(label, choices, value, change) {
  const made = element("select", { class: "wb-native", "aria-label": label, onchange: () => change(made.value) });
  choices.forEach(([key, text]) => made.append(element("option", { value: key, selected: key === value }, text)));
  return made;
}
