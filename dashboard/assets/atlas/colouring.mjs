// From the name of a colouring to one byte per point.

import { categoryCodes, ends, scaleCodes } from "./looks.mjs";

/** @type {Omit<Colouring, "codes">} */
const PLAIN = { column: null, values: new Uint8Array(), ends: [0, 1], slots: [] };
const OUTGROWN = 620; // size in pixels of a level's typical region from which on the next finer level colours the map

/**
 * Zooms at which each finer level replaces the coarser: one per level but the first.
 * @param {Region[]} regions @param {number} levels
 */
export function thresholds(regions, levels) {
  /** @type {number[]} */
  const at = [];
  for (let level = 0; level + 1 < levels; level++) {
    const here = regions.filter((region) => region.level === level);
    const extents = here
      .map((r) => [Math.max(r.x_max - r.x_min, r.y_max - r.y_min), r.size])
      .sort((a, b) => a[0] - b[0]);
    let left = extents.reduce((sum, [, size]) => sum + size, 0) / 2,
      k = 0;
    while (k < extents.length && left > extents[k][1]) left -= extents[k++][1];
    const middle = extents[k]?.[0] || 1;
    at.push(Math.max(OUTGROWN / middle, (at[level - 1] ?? 0) * 1.2));
  }
  return at;
}

/**
 * The level whose regions suit a zoom; none coarser than the one that suits the whole map.
 * @param {number} zoom @param {number[]} at @param {number} [coarsest]
 */
export const levelAt = (zoom, at, coarsest = 0) => Math.max(coarsest, at.filter((z) => zoom >= z).length);

/**
 * `{codes, column, values, ends | slots}` of a colouring; `column` is null for one colour.
 * @param {string} name @param {AtlasView} data @returns {Promise<Colouring>}
 */
export async function coloured(name, data) {
  const column = data.about.columns.find((each) => each.name === name);
  const values = await data.column(name);
  if (!column || !values) return { ...PLAIN, codes: new Uint8Array(data.n).fill(5) };
  if (column.kind === "number") {
    const range = ends(values);
    return { ...PLAIN, codes: scaleCodes(values, range), column, values, ends: range };
  }
  const slots =
    column.kind === "region"
      ? await regionSlots(data)
      : [0, ...column.names.map((_, i) => (i < data.palette ? i + 1 : 0))];
  return { ...PLAIN, codes: categoryCodes(values, slots), column, values, slots };
}

/** @param {AtlasView} data */
async function regionSlots(data) {
  const slots = [0];
  for (const region of await data.regions()) slots[region.region + 1] = region.colour + 1;
  return slots;
}
