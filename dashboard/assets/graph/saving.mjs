// The whole graph as an SVG document, and as a PNG drawn from it. Texts are set as text; the browser escapes them.

import { download } from "../atlas/saving.mjs";
import { contextOf, svg as node } from "../dom.mjs";
import { messageOf } from "../http.mjs";
import {
  boxOf,
  coloursOf,
  cornersOf,
  curveOf,
  groupColour,
  lettersOf,
  lineOf,
  lineWidth,
  tokenText,
} from "./marks.mjs";
import { KINDS } from "./model.mjs";
import { layOut } from "./scene.mjs";

const SPACE = "http://www.w3.org/2000/svg";
const EDGE = { left: 52, right: 40, top: 24, bottom: 40 };

/** The picture as an SVG element. `title` says what it shows. @param {{ scene: Scene, layout: Layout, theme: GraphTheme, tokens: string[], title: string }} given */
function toSvg({ scene, layout, theme, tokens, title }) {
  const width = Math.ceil(layout.width + EDGE.left + EDGE.right),
    height = Math.ceil(layout.height + EDGE.top + EDGE.bottom);
  const svg = node("svg", {
    xmlns: SPACE,
    width,
    height,
    viewBox: `0 0 ${width} ${height}`,
    "font-family": theme.font,
    "font-size": 12,
  });
  svg.append(node("title", {}, tokenText(title, 400)), node("rect", { width, height, fill: theme.surface }));
  const all = node("g", { transform: `translate(${EDGE.left} ${EDGE.top})` });
  svg.append(all);
  for (const row of layout.rows.filter(({ used }) => used)) {
    all.append(node("line", { x1: -6, x2: layout.width, y1: row.y, y2: row.y, stroke: theme.grid }));
    all.append(node("text", { x: -10, y: row.y + 4, fill: theme.muted, "text-anchor": "end" }, row.name));
  }
  all.append(edges(scene, theme), ...scene.items.flatMap((item) => mark(item, theme)));
  const named = scene.roomy || scene.isCircuit,
    seen = scene.ranked.map((k) => scene.items[k]).filter((item) => item.pinned || named);
  for (const { letter, at, colour } of lettersOf(scene, { x: 0, y: 0, zoom: 1 }, theme))
    all.append(halo(letter, at[0] - 3, at[1] + 4, colour, theme));
  all.append(...seen.map((item) => label(item, theme)));
  for (const { position, x, width: room } of layout.columns) {
    const text = tokenText(tokens[position], Math.max(1, Math.floor(room / 7.3)));
    const at = { x: scene.roomy ? x + 9 : x + room / 2, "text-anchor": scene.roomy ? "start" : "middle" };
    all.append(node("text", { ...at, y: layout.height + 24, fill: theme.text, "font-family": theme.mono }, text));
  }
  return svg;
}

/** @param {Scene} scene @param {GraphTheme} theme */
function edges(scene, theme) {
  const group = node("g", { fill: "none" }),
    { links } = scene;
  for (let e = 0; e < links.from.length; e++) {
    const strength = Math.sqrt(links.strength[e]),
      [colour, dash] = theme.lines[lineOf(links, e)],
      [x, y, ...rest] = curveOf(scene, e, { x: 0, y: 0, zoom: 1 }).map((v) => Number(v.toFixed(1)));
    group.append(
      node("path", {
        d: `M${x} ${y}C${rest.join(" ")}`,
        stroke: colour,
        ...(dash.length ? { "stroke-dasharray": dash.join(" ") } : {}),
        "stroke-width": 0.6 + 3 * strength,
        "stroke-opacity": 0.12 + 0.6 * strength,
      }),
    );
  }
  return group;
}

/** @param {Item} item @param {GraphTheme} theme */
function mark(item, theme) {
  const { fill, line, text } = coloursOf(item, theme, groupColour(theme, item.group)),
    box = boxOf(item),
    look = { fill, stroke: line, "stroke-width": lineWidth(item) };
  if (box) {
    return [
      node("rect", {
        ...look,
        x: item.x - box.width / 2,
        y: item.y - box.height / 2,
        width: box.width,
        height: box.height,
        rx: 7,
      }),
      node(
        "text",
        { x: item.x, y: item.y + 4, fill: text, "text-anchor": "middle", "font-weight": 600 },
        tokenText(item.label, item.node < 0 ? 24 : Math.max(2, Math.floor(item.wide / 7.5))),
      ),
    ];
  }
  if (item.kind === KINDS.FEATURE) return [node("circle", { ...look, cx: item.x, cy: item.y, r: item.r })];
  return [
    node("polygon", {
      ...look,
      points: cornersOf(item, item.x, item.y, item.r)
        .map((p) => p.map((v) => v.toFixed(1)).join(","))
        .join(" "),
    }),
  ];
}

/** @param {Item} item @param {GraphTheme} theme */
const label = (item, theme) => halo(tokenText(item.label, 26), item.x + 9, item.y + 4, theme.text, theme);

/**
 * Text that reads on lines.
 * @param {string} text @param {number} x @param {number} y @param {string} fill @param {GraphTheme} theme
 */
function halo(text, x, y, fill, theme) {
  return node("text", { x, y, fill, stroke: theme.surface, "stroke-width": 3.5, "paint-order": "stroke" }, text);
}

/** @param {SVGElement} svg */
const blobOf = (svg) => new Blob([new XMLSerializer().serializeToString(svg)], { type: "image/svg+xml" });

/** @param {SVGElement} svg @param {string} name */
function saveSvg(svg, name) {
  download(URL.createObjectURL(blobOf(svg)), `${name}.svg`);
}

/** @param {SVGElement} svg @param {string} name */
async function savePng(svg, name) {
  const [width, height] = ["width", "height"].map((side) => Number(svg.getAttribute(side)));
  const scale = Math.min(2, 8000 / Math.max(width, height)),
    address = URL.createObjectURL(blobOf(svg));
  try {
    const image = new Image();
    image.src = address;
    await image.decode();
    const sheet = document.createElement("canvas");
    sheet.width = Math.round(width * scale);
    sheet.height = Math.round(height * scale);
    contextOf(sheet).drawImage(image, 0, 0, sheet.width, sheet.height);
    const blob = await new Promise((done) => sheet.toBlob(done, "image/png"));
    download(URL.createObjectURL(blob), `${name}.png`);
  } finally {
    URL.revokeObjectURL(address);
  }
}

/** Save the whole graph as a picture. @param {GraphView} view @param {"png" | "svg"} kind */
export async function savePicture(view, kind) {
  const labelled = {
    scene: view.scene,
    layout: view.layout ?? layOut(view.scene, view.model, view.resolved, 1000, 600),
  };
  const svg = toSvg({
    ...labelled,
    theme: view.canvas.theme,
    tokens: view.model.tokens,
    title: document.querySelector(".wb-graph-title")?.textContent || view.name,
  });
  try {
    if (kind === "svg") saveSvg(svg, view.file);
    else await savePng(svg, view.file);
  } catch (error) {
    view.say(`The picture could not be made: ${messageOf(error)}`, true);
  }
}
