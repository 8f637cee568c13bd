// Export of what canvases show.

import { contextOf } from "../dom.mjs";

/**
 * A PNG of an element's canvases over a background, as a download; what lies beyond the element is cut off.
 * @param {HTMLElement} root @param {HTMLCanvasElement[]} layers @param {string} background @param {string} name
 */
export async function savePicture(root, layers, background, name) {
  const whole = root.getBoundingClientRect(),
    scale = Math.max(...layers.map((layer) => layer.width / layer.getBoundingClientRect().width));
  const sheet = document.createElement("canvas");
  sheet.width = Math.round(whole.width * scale);
  sheet.height = Math.round(whole.height * scale);
  const context = contextOf(sheet);
  context.fillStyle = background;
  context.fillRect(0, 0, sheet.width, sheet.height);
  context.scale(scale, scale);
  for (const layer of layers) {
    const { left, top, width, height } = layer.getBoundingClientRect();
    context.drawImage(layer, left - whole.left, top - whole.top, width, height);
  }
  const blob = await new Promise((done) => sheet.toBlob(done, "image/png"));
  download(URL.createObjectURL(blob), `${name}.png`);
}

/** @param {string} address @param {string} name */
export function download(address, name) {
  const link = document.createElement("a");
  link.href = address;
  link.download = name;
  document.body.append(link);
  link.click();
  link.remove();
  if (address.startsWith("blob:")) setTimeout(() => URL.revokeObjectURL(address), 10000);
}
