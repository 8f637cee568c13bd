// Export of pictures and tables.

import { contextOf } from "../dom.mjs";

/**
 * A PNG of the layers over the background, as a download.
 * @param {HTMLCanvasElement[]} layers @param {string} background @param {string} name
 */
export async function savePicture(layers, background, name) {
  const sheet = document.createElement("canvas");
  sheet.width = layers[0].width;
  sheet.height = layers[0].height;
  const context = contextOf(sheet);
  context.fillStyle = background;
  context.fillRect(0, 0, sheet.width, sheet.height);
  for (const layer of layers) context.drawImage(layer, 0, 0, sheet.width, sheet.height);
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

/** @param {string} value */
const quoted = (value) => (/[",\r\n]/.test(value) ? `"${value.replace(/"/g, '""')}"` : value);

/**
 * Rows of points as CSV, for pages without a server. `texts` has label and values of each.
 * @param {PointText[]} texts @param {Float32Array} xy
 */
export function csvOf(texts, xy) {
  const names = texts[0]?.values.map(([name]) => name) ?? [];
  const lines = [["point", "x", "y", "label", ...names].map(quoted).join(",")];
  for (const text of texts) {
    const row = [
      text.point,
      xy[2 * text.point],
      xy[2 * text.point + 1],
      text.label,
      ...text.values.map(([, value]) => value),
    ];
    lines.push(row.map((value) => quoted(String(value ?? ""))).join(","));
  }
  return `${lines.join("\r\n")}\r\n`;
}
