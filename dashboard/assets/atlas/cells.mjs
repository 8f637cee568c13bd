// An activation atlas over the map: square cells, each with the tokens or features of its mean activation. Of several
// grids the finest is drawn whose cells have room for text. A cell of low coherence is pale: its mean represents none of
// its activations.

import { visible } from "../dom.mjs";

const ROOM = 104; // smallest side in pixels of a cell that has room for text
const LINE = 13,
  PADDING = 4;
const FONT = '11px ui-monospace, SFMono-Regular, Menlo, Consolas, "DejaVu Sans Mono", monospace';

/** The grid for a zoom: the finest with room, else the coarsest. @param {CellGrid[]} grids @param {number} zoom */
function gridAt(grids, zoom) {
  return grids.filter(({ side }) => side * zoom >= ROOM).pop() ?? grids[0] ?? null;
}

/**
 * The cell at a position of the world, if any.
 * @param {CellGrid[]} grids @param {number} zoom @param {number} x @param {number} y
 */
export function cellAt(grids, zoom, x, y) {
  const grid = gridAt(grids, zoom);
  if (!grid) return null;
  /** @param {Cell} given */
  const under = ({ x: cx, y: cy, size }) => 2 * Math.max(Math.abs(x - cx), Math.abs(y - cy)) <= size * grid.side;
  return grid.cells.find(under) ?? null;
}

/**
 * @param {CanvasRenderingContext2D} context @param {CellGrid[]} grids @param {Camera} camera
 * @param {AtlasTheme} theme
 */
export function drawCells(context, grids, camera, theme) {
  const grid = gridAt(grids, camera.zoom);
  if (!grid) return;
  context.font = FONT;
  context.textAlign = "center";
  context.textBaseline = "middle";
  context.lineWidth = 1;
  for (const cell of grid.cells) {
    const side = cell.size * grid.side * camera.zoom,
      x = camera.screenX(cell.x),
      y = camera.screenY(cell.y);
    if (x < -side || y < -side || x > camera.width + side || y > camera.height + side) continue;
    context.globalAlpha = 1;
    context.fillStyle = theme.veil;
    context.strokeStyle = theme.contour;
    context.fillRect(x - side / 2, y - side / 2, side, side);
    context.globalAlpha = 0.5 + 0.5 * Math.min(1, Math.max(0, 2 * (cell.coherence ?? 0)));
    context.strokeRect(x - side / 2, y - side / 2, side, side);
    words(context, cell.texts, x, y, side - 2 * PADDING, theme);
  }
  context.globalAlpha = 1;
}

/**
 * @param {CanvasRenderingContext2D} context @param {string[]} texts @param {number} x @param {number} y
 * @param {number} room @param {AtlasTheme} theme
 */
function words(context, texts, x, y, room, theme) {
  const lines = texts.slice(0, Math.floor(room / LINE));
  const letters = Math.floor(room / 6.7);
  if (letters < 2) return;
  lines.forEach((text, i) => {
    context.fillStyle = i ? theme.muted : theme.text;
    context.fillText(
      `\u2068${visible(text.trim() || text, letters)}\u2069`,
      x,
      y + (i - (lines.length - 1) / 2) * LINE,
    );
  });
}
