// The picture as items and links: which nodes are drawn where, with groups as one item each where they are collapsed.

import { boxOf } from "./marks.mjs";
import { KINDS } from "./model.mjs";

const FEW = 70; // with at most this many items beside the tokens each has a line of its own, and room for its name
const DENSE = { pitch: 11, row: 11, column: 34, gap: 8 };
const ROOMY = { pitch: 150, row: 21, column: 96, gap: 12 };
const NOWHERE = { x: 0, y: 0, r: 4, wide: 0 };
const UNPLACED = { ...NOWHERE, layer: 0, position: 0, influence: 0, size: 0, role: -1, pinned: false, label: "" };
const TARGET = { width: 118, height: 46 };
const REASON = 1; // the input of a line to what a query or key reads, in a graph
const JOINED = 4; // the input of a line that is no edge: it joins the positions of one head
const THIN = 0.2; // strength of the line of a reason
const BESIDE = [0, 26, -26]; // pixels between lines with the same ends
const CLEAR = 30; // from an item that a line passes
const MANY = 240;

/**
 * @param shown a byte per node and edge: 1 for what is shown
 * @param state collapse
 * @param edits pins (a Set of numbers), groups [{name, members}], names (by number)
 * @param {Model} model @param {Shown} shown @param {GraphState} state @param {ResolvedEdits} edits
 */
export function makeScene(model, shown, state, edits) {
  const groupOf = new Int32Array(model.n).fill(-1);
  edits.groups.forEach(({ members }, g) =>
    members.forEach((i) => {
      groupOf[i] = g;
    }),
  );
  /** @type {Item[]} */
  const items = [];
  /** @type {Map<number, number>} */
  const ofGroup = new Map();
  const at = new Int32Array(model.n).fill(-1);
  for (let i = 0; i < model.n; i++) {
    const g = groupOf[i];
    if (!(shown.node[i] || (g >= 0 && state.collapse))) continue;
    if (state.collapse && g >= 0) {
      const known = ofGroup.get(g);
      at[i] = known ?? items.length;
      if (known === undefined) {
        ofGroup.set(g, items.length);
        items.push({ ...UNPLACED, node: -1, group: g, kind: KINDS.FEATURE, members: [] });
      }
      items[at[i]].members.push(i);
    } else {
      at[i] = items.length;
      items.push(single(model, edits, i, g));
    }
  }
  for (const item of items) if (item.node < 0) summarise(model, edits, item);
  const links = gather(model, edits, shown, at, items, state);
  const roomy = items.filter((item) => item.kind !== KINDS.TOKEN).length <= FEW;
  const ranked = [...items.keys()]
    .filter((k) => items[k].kind === KINDS.FEATURE && items[k].node >= 0)
    .sort((a, b) => Number(items[b].pinned) - Number(items[a].pinned) || size(items[b]) - size(items[a]));
  return { items, links, at, shown, roomy, ranked, groupOf, isCircuit: model.via !== undefined };
}

/**
 * What is shown, with the parts of a head's query and key and a line from each to the reader of the edge.
 * @param {Model} model @param {Shown} shown @param {{ reader: number, read: number[] }} reasons
 */
export function withReasons(model, shown, { reader, read }) {
  if (!read.length) return shown;
  const node = marks(model.n, [reader, ...read]);
  shown.node.forEach((yes, i) => {
    node[i] ||= yes;
  });
  /** @type {Shown["joined"]} */
  const joined = [...shown.joined];
  for (const k of read) joined.push([k, reader, REASON]);
  return { ...shown, node, joined };
}

/** @param {Item} item */
const size = (item) => Math.abs(item.size);

/** @param {Model} model @param {ResolvedEdits} edits @param {number} i @param {number} group */
function single(model, edits, i, group) {
  return {
    ...UNPLACED,
    node: i,
    group,
    members: [i],
    kind: model.kind[i],
    layer: model.layer[i],
    position: model.position[i],
    influence: model.influence[i],
    size: model.sizes[i],
    role: model.role?.[i] ?? -1,
    pinned: edits.pins.has(i),
    label: labelOf(model, edits, i),
  };
}

/**
 * The visitor's name of a node, else its label, else what it is.
 * @param {Model} model @param {ResolvedEdits} edits @param {number} i
 */
export function labelOf(model, edits, i) {
  return edits.names.get(i) || model.label[i] || plainName(model, i);
}

/** @param {Model} model @param {number} i */
export function plainName(model, i) {
  if (model.kind[i] === KINDS.ERROR) return `error of layer ${model.layer[i]}`;
  if (model.kind[i] === KINDS.FEATURE) return `${model.unit} ${model.index[i]}`;
  return model.kind[i] === KINDS.TOKEN ? `token ${model.position[i]}` : `target ${model.index[i] + 1}`;
}

/**
 * A group lies at its strongest member; its influence and effect are the sums.
 * @param {Model} model @param {ResolvedEdits} edits @param {Item} item
 */
function summarise(model, edits, item) {
  const { name } = edits.groups[item.group];
  const strongest = item.members.reduce((a, b) => (Math.abs(model.sizes[b]) > Math.abs(model.sizes[a]) ? b : a));
  item.influence = item.members.reduce((sum, i) => sum + model.influence[i], 0);
  item.size = item.members.reduce((sum, i) => sum + model.sizes[i], 0);
  item.layer = model.layer[strongest];
  item.position = model.position[strongest];
  item.strongest = strongest;
  item.pinned = item.members.some((i) => edits.pins.has(i));
  item.label = `${name} (${item.members.length})`;
}

/**
 * Links between items: all edges with the same ends and input are summed, signed, where one of them is shown (of a
 * circuit, those that are shown); none is inside a group.
 * @param {Model} model @param {ResolvedEdits} edits @param {Shown} shown @param {Int32Array} at @param {Item[]} items
 * @param {GraphState} state
 */
function gather(model, edits, shown, at, items, state) {
  const sums = new Map(),
    seen = new Set(),
    single = !state.collapse || !edits.groups.length;
  /** @type {{ from: number[], to: number[], weight: number[], via: number[] }} */
  const { from, to, weight, via } = { from: [], to: [], weight: [], via: [] };
  /** @param {number} a @param {number} b @param {number} w @param {number} input */
  const add = (a, b, w, input) => {
    from.push(a);
    to.push(b);
    weight.push(w);
    via.push(input);
  };
  for (let e = 0; e < model.m; e++) {
    const a = at[model.source[e]],
      b = at[model.target[e]];
    if (a < 0 || b < 0 || a === b) continue;
    if (single) {
      if (shown.edge[e]) add(a, b, model.weight[e], model.via?.[e] ?? 0);
    } else if (shown.edge[e] || !model.via) {
      const key = ((model.via?.[e] ?? 0) * items.length + a) * items.length + b;
      sums.set(key, (sums.get(key) || 0) + model.weight[e]);
      if (shown.edge[e]) seen.add(key);
    }
  }
  for (const [key, sum] of sums) {
    const ends = Math.floor(key / items.length);
    if (seen.has(key)) add(ends % items.length, key % items.length, sum, Math.floor(ends / items.length));
  }
  for (const [a, b, input = JOINED] of shown.joined)
    if (at[a] >= 0 && at[b] >= 0 && at[a] !== at[b]) add(at[a], at[b], 0, input);
  const row = Float64Array.from(items, (item) => item.members.reduce((sum, i) => sum + model.input[i], 0));
  const part = weight.map((w, e) => Math.abs(w) / (row[to[e]] || 1)),
    sorted = [...part].sort((a, b) => a - b);
  const few = sorted.length <= 200 && !model.via,
    large = few ? sorted[Math.floor(0.98 * (sorted.length - 1))] || 1 : 1; // few edges: the strongest in full
  const strength = part.map((share, e) =>
    via[e] === REASON && !model.via ? THIN : Math.min(1, share / large) ** (model.via ? 2 : 1),
  ); // widths go by the root
  const order = weight.map((_, e) => e).sort((a, b) => strength[a] - strength[b]);
  /** @type {Links} */
  const links = {
    from: Int32Array.from(order, (e) => from[e]),
    to: Int32Array.from(order, (e) => to[e]),
    weight: Float64Array.from(order, (e) => weight[e]),
    strength: Float32Array.from(order, (e) => strength[e]),
    via: Uint8Array.from(order, (e) => via[e]),
    bow: new Float32Array(order.length),
    into: items.map(() => []),
    out: items.map(() => []),
  };
  for (let e = 0; e < links.from.length; e++) {
    links.out[links.from[e]].push(e);
    links.into[links.to[e]].push(e);
  }
  return links;
}

/**
 * Positions of all items in pixels at zoom 1: a column a position, a row a layer, targets above, tokens below.
 * @param {Scene} scene @param {Model} model @param {number} width @param {number} height
 */
export function layOut(scene, model, width, height) {
  const look = scene.roomy ? ROOMY : DENSE;
  const { items } = scene,
    top = model.layers,
    nColumns = model.tokens.length;
  const cells = new Map();
  items.forEach((item) => {
    if (item.kind === KINDS.LOGIT) return;
    const key = `${item.layer} ${item.position}`;
    if (!cells.has(key)) cells.set(key, []);
    cells.get(key).push(item);
  });
  const most = new Array(nColumns).fill(0),
    rows = new Array(top + 1).fill(0);
  for (const [key, cell] of cells) {
    const p = Number(key.split(" ")[1]);
    if (p < nColumns) most[p] = Math.max(most[p], cell.length);
  }
  const per = most.map((n) =>
    scene.roomy ? Math.min(n, 1) : Math.min(n, Math.max(3, Math.round(1.5 * Math.sqrt(n)))),
  );
  for (const [key, cell] of cells) {
    const [layer, p] = key.split(" ").map(Number);
    if (layer < top) rows[layer + 1] = Math.max(rows[layer + 1], Math.ceil(cell.length / (per[p] || 1)));
  }
  const wide = per.map((n) =>
    n ? Math.max(look.column, n * look.pitch + look.gap) : scene.roomy ? 84 : look.column * 0.7,
  );
  const high = rows.map((n, i) => (n ? n * look.row + look.gap : i ? 3 : 0));
  const above = TARGET.height + 14,
    zoom = Math.min(1, width / sum(wide), (height - above) / sum(high));
  const columns = spread(wide, width / zoom, scene.roomy ? per.map(() => 1) : per),
    heights = spread(high, (height - above) / zoom, rows);
  const tall = sum(heights) + TARGET.height / zoom;
  const columnAt = starts(columns),
    rowAt = starts(heights);
  for (const cell of cells.values())
    place(cell, { columns, columnAt, heights, rowAt, per, look, tall, roomy: scene.roomy });
  targets(items, sum(columns), zoom);
  apart(items, zoom);
  if (scene.isCircuit) bow(scene, zoom);
  const rowsOut = rows.map((n, i) => ({
    name: model.rows[i],
    used: n > 0,
    y: tall - rowAt[i] - heights[i] / 2,
    height: heights[i],
  }));
  const columnsOut = columns.map((w, p) => ({ position: p, x: columnAt[p], width: w }));
  return { width: sum(columns), height: tall, rows: rowsOut, columns: columnsOut };
}

/** @param {Item[]} cell @param {Places} given */
function place(cell, { columns, columnAt, heights, rowAt, per, look, tall, roomy }) {
  const p = Math.min(cell[0].position, columns.length - 1),
    row = Math.min(cell[0].layer + 1, heights.length - 1);
  cell.sort((a, b) => size(b) - size(a));
  const wide = Math.min(cell.length, per[p] || 1),
    deep = Math.ceil(cell.length / wide);
  const middle = tall - rowAt[row] - heights[row] / 2;
  cell.forEach((item, k) => {
    const column = k % wide,
      line = Math.floor(k / wide),
      inLine = Math.min(wide, cell.length - line * wide);
    item.x = roomy ? columnAt[p] + 14 : columnAt[p] + columns[p] / 2 + (column - (inLine - 1) / 2) * look.pitch;
    item.y = middle + (line - (deep - 1) / 2) * look.row;
  });
}

/**
 * Targets lie side by side at the right end of the top row, the most probable one rightmost.
 * @param {Item[]} items @param {number} width @param {number} zoom
 */
function targets(items, width, zoom) {
  const all = items.filter((item) => item.kind === KINDS.LOGIT),
    wide = Math.min(TARGET.width, (width * zoom) / (all.length || 1));
  all.forEach((item, k) => {
    item.wide = wide - 10;
    item.x = width - (wide / 2 + k * wide) / zoom;
    item.y = (TARGET.height / 2 - 6) / zoom;
  });
}

/**
 * Boxes of groups that overlap are moved down, below each other.
 * @param {Item[]} items @param {number} zoom
 */
function apart(items, zoom) {
  /** @type {Item[]} */
  const done = [];
  for (const item of items.filter((each) => boxOf(each)).sort((a, b) => a.y - b.y)) {
    const { width, height } = boxOf(item) ?? { width: 0, height: 0 };
    if (item.node < 0)
      for (const other of done) {
        const wide = ((boxOf(other)?.width ?? 0) + width) / 2 + 4,
          high = ((boxOf(other)?.height ?? 0) + height) / 2 + 4;
        if (Math.abs(item.x - other.x) * zoom < wide && (item.y - other.y) * zoom < high)
          item.y = other.y + high / zoom;
      }
    done.push(item);
    done.sort((a, b) => a.y - b.y);
  }
}

/**
 * Shift the middles of lines sideways: off others with the same ends, and around the items in their way.
 * @param {Scene} scene @param {number} zoom
 */
function bow({ items, links }, zoom) {
  const parallel = new Map(),
    aside = links.from.length <= MANY ? 58 : 16; // among many lines, wide curves would hide more than they show
  for (let e = 0; e < links.from.length; e++) {
    const [a, b] = [items[links.from[e]], items[links.to[e]]],
      key = `${links.from[e]} ${links.to[e]}`,
      nth = parallel.get(key) ?? 0,
      [dx, dy] = [b.x - a.x, b.y - a.y],
      length = Math.hypot(dx, dy) || 1;
    parallel.set(key, nth + 1);
    let [side, n] = [0, 0];
    for (const item of items) {
      const along = ((item.x - a.x) * dx + (item.y - a.y) * dy) / length ** 2,
        off = ((item.y - a.y) * dx - (item.x - a.x) * dy) / length;
      if (along < 0.02 || along > 0.98 || Math.abs(off) * zoom > CLEAR || item === a || item === b) continue;
      side += off;
      n += 1;
    }
    links.bow[e] = (BESIDE[nth % 3] - (n ? (Math.sign(side) || 1) * (aside + 10 * Math.min(4, n)) : 0)) / zoom;
  }
}

/**
 * Widen the used parts evenly up to the room that there is.
 * @param {number[]} sizes @param {number} room @param {(number | boolean)[]} used
 */
function spread(sizes, room, used) {
  const n = used.filter(Boolean).length,
    more = Math.max(0, room - sum(sizes)) / (n || 1);
  return sizes.map((size, i) => (used[i] ? size + more : size));
}

/** @param {number[]} values */
const sum = (values) => values.reduce((a, b) => a + b, 0);

/** @param {number[]} sizes */
function starts(sizes) {
  let at = 0;
  return sizes.map((size) => {
    at += size;
    return at - size;
  });
}

/** A byte per entry: 1 for those in a list. @param {number} n @param {number[]} numbers */
export function marks(n, numbers) {
  const found = new Uint8Array(n);
  for (const i of numbers) found[i] = 1;
  return found;
}
