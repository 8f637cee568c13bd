// The logit lens on a canvas: only the columns that are seen are computed and drawn. Rows are layers, the input below.

import { byId, element, menu } from "../dom.mjs";
import { ask, colours, css, failed, fit, percent, pointing, settled, spaced, table, within } from "./draw.mjs";

const CELL = 66,
  ROW = 21,
  LEFT = 66,
  TOP = 24;
const DARK_FROM = 0.64; // probability from which a cell is nearer the far end of the scale
const RANKS = 1000; // a rank from this on has the palest colour

/** @param {PromptState} state */
export function lens(state) {
  const holder = byId("prompt-lens");
  const { layers, tokens } = state.reading,
    n = tokens.length,
    rows = layers.length;
  const canvas = element("canvas", {
    tabindex: 0,
    role: "img",
    "aria-describedby": "prompt-lens-words",
    "aria-label": "Lens: layers up, positions across; arrow keys move the chosen cell",
  });
  const scroll = element(
    "div",
    { class: "wb-lens", tabindex: -1 },
    element("div", { style: { width: `${LEFT + n * CELL}px` } }, canvas),
  );
  const words = element("p", { class: "wb-readout", id: "prompt-lens-words", "aria-live": "polite" });
  holder.replaceChildren(scroll, words);
  const show = { kind: state.reading.lenses[0][0], value: "top" };
  /** @type {Map<number, LensColumn>} */
  let columns = new Map();
  /** @type {AbortController | null} */
  let wanted = null;
  /** @type {[column: number, row: number] | null} */
  let hovered = null;
  let failing = false;

  /** @type {Record<string, string>} */
  const named = { logit: "logit lens", tuned: "tuned lens", jacobian: "Jacobian lens" };
  const kinds = state.reading.lenses.map(([kind, said]) => [kind, said ? `${named[kind]}: ${said}` : named[kind]]);
  const values = [
    ["top", "most probable token"],
    ["probability", "probability of the answer"],
    ["rank", "rank of the answer"],
  ];
  byId("prompt-lens-choice").replaceChildren(
    ...(kinds.length > 1
      ? [
          menu("Lens", kinds, show.kind, (kind) => {
            show.kind = kind;
            forget();
          }),
        ]
      : []),
    menu("Value in the cells", values, show.value, (value) => {
      show.value = value;
      forget();
    }),
  );

  function forget() {
    columns = new Map();
    draw();
    fetchSeen();
  }

  const seen = () => {
    const first = Math.max(0, Math.floor(scroll.scrollLeft / CELL));
    return [first, Math.min(n, first + Math.ceil((scroll.clientWidth - LEFT) / CELL) + 1)];
  };

  const fetchSeen = settled(40, async () => {
    if (!scroll.isConnected) return;
    const [first, end] = seen();
    const missing = [];
    for (let i = first; i < end; i++) if (!columns.has(i)) missing.push(i);
    if (!missing.length) return;
    if (wanted) wanted.abort();
    wanted = new AbortController();
    const mine = columns;
    const range = { start: missing[0], stop: missing[missing.length - 1] + 1, lens: show.kind };
    try {
      const token = show.value === "top" ? "" : state.asked.answer || state.reading.likeliest;
      const found = await ask("read_layers", { ...state.asking(), ...range, token }, wanted.signal);
      if (!found || mine !== columns) return;
      failing = false;
      const width = found.cells[0].length;
      for (let i = 0; i < width; i++) {
        columns.set(found.start + i, {
          cells: found.cells.map((row) => row[i]),
          followed: found.followed,
          rank: found.rank.map((row) => row[i]),
          probability: found.probability.map((row) => row[i]),
          others: found.others[i],
          top: found.top_elsewhere.map((row) => row[i]),
          usual: found.rank_elsewhere.map((row) => row[i]),
        });
      }
      draw();
      fetchSeen();
    } catch (error) {
      failing = true;
      words.replaceChildren(failed(error));
    }
  });

  /**
   * Colour (0 to 1) and text of a cell.
   * @param {LensColumn} column @param {number} row @returns {[share: number, text: string]}
   */
  function content(column, row) {
    if (show.value === "top") return [column.cells[row][0][1], spaced(column.cells[row][0][0], 9)];
    const p = column.probability[row],
      rank = column.rank[row];
    if (show.value === "probability") return [p, percent(p)];
    return [Math.max(0, 1 - Math.log1p(rank) / Math.log1p(RANKS)), String(rank + 1)];
  }

  function draw() {
    if (!scroll.isConnected) return;
    const c = colours(),
      lut = table(c.scale),
      width = scroll.clientWidth || 640;
    const context = fit(canvas, width, TOP + rows * ROW);
    const [first, end] = seen(),
      shift = LEFT - scroll.scrollLeft;
    const style = getComputedStyle(holder);
    context.font = `11px ${style.getPropertyValue("--wb-mono")}`;
    context.textBaseline = "middle";
    context.textAlign = "center";
    for (let i = first; i < end; i++) {
      const x = shift + i * CELL,
        column = columns.get(i);
      context.fillStyle = i === state.selection.token ? c.accent : c.text;
      context.fillText(spaced(tokens[i], 10), x + CELL / 2, TOP / 2);
      for (let row = 0; row < rows; row++) {
        const y = TOP + (rows - 1 - row) * ROW;
        if (!column) {
          context.fillStyle = c.grid;
          context.fillRect(x + 0.5, y + 0.5, CELL - 1, ROW - 1);
          continue;
        }
        const [share, text] = content(column, row);
        context.fillStyle = css(lut[Math.round(255 * share)]);
        context.fillRect(x + 0.5, y + 0.5, CELL - 1, ROW - 1);
        context.fillStyle = c.on[share > DARK_FROM ? 1 : 0];
        context.fillText(text, x + CELL / 2, y + ROW / 2, CELL - 6);
      }
    }
    frame(context, state.selection.token, state.selection.layer + 1, shift, c.opposite);
    if (hovered) frame(context, hovered[0], hovered[1], shift, c.text);
    context.clearRect(0, 0, LEFT, TOP + rows * ROW);
    context.textAlign = "right";
    layers.forEach((name, row) => {
      context.fillStyle = row === state.selection.layer + 1 ? c.accent : c.muted;
      context.fillText(name, LEFT - 6, TOP + (rows - 0.5 - row) * ROW);
    });
    read();
  }

  /**
   * @param {CanvasRenderingContext2D} context @param {number} column @param {number} row @param {number} shift
   * @param {string} colour
   */
  function frame(context, column, row, shift, colour) {
    context.strokeStyle = colour;
    context.lineWidth = 2;
    context.strokeRect(shift + column * CELL + 1, TOP + (rows - 1 - row) * ROW + 1, CELL - 2, ROW - 2);
  }

  // The cell under the mouse, or else the chosen one, in words.
  function read() {
    if (failing) return;
    const [at, row] = hovered || [state.selection.token, state.selection.layer + 1];
    const column = columns.get(at);
    if (!column) {
      words.textContent = "computing what is seen …";
      return;
    }
    const guesses = column.cells[row].map(([token, p]) => `${spaced(token, 24)} ${percent(p)}`).join(" · ");
    const own =
      column.followed === null
        ? ""
        : ` · the answer ${spaced(column.followed, 24)} has rank ${column.rank[row] + 1} and ${percent(column.probability[row])}` +
          (column.usual.length ? ` (null: median rank ${Math.round(column.usual[row] + 1)} at other positions)` : "");
    const chance = ` · null: the same token is on top at ${column.top[row]} of ${column.others} other positions`;
    words.textContent = `${layers[row]}, after ${spaced(tokens[at], 24)} (${at}): ${guesses}${own}${chance}`;
  }

  /** @param {MouseEvent} event @returns {[column: number, row: number] | null} */
  function cell(event) {
    const box = canvas.getBoundingClientRect();
    const column = Math.floor((event.clientX - box.left - LEFT + scroll.scrollLeft) / CELL);
    const row = rows - 1 - Math.floor((event.clientY - box.top - TOP) / ROW);
    const inside = event.clientX - box.left >= LEFT && column >= 0 && column < n && row >= 0 && row < rows;
    return inside ? [column, row] : null;
  }

  /** @param {number} column @param {number} row */
  const choose = (column, row) => state.select({ token: column, layer: Math.max(0, row - 1), key: null });
  pointing(canvas, {
    at: cell,
    over: (found) => {
      hovered = found;
      draw();
    },
    choose: (found) => choose(...found),
    move: (right, up) => {
      const { token, layer } = state.selection;
      state.select({ token: within(token + right, n - 1), layer: within(layer + up, rows - 2), key: null });
    },
  });
  scroll.addEventListener("scroll", () => {
    draw();
    fetchSeen();
  });
  new ResizeObserver(() => {
    draw();
    fetchSeen();
  }).observe(scroll);

  let at = -1; // the token that was in view last
  function select() {
    const { token } = state.selection,
      [first, end] = seen();
    if (at !== token && (token < first + 1 || token > end - 3)) {
      scroll.scrollLeft = Math.max(0, (token + 2) * CELL + LEFT - scroll.clientWidth);
    }
    at = token;
    draw();
    fetchSeen();
  }
  return {
    select,
    paint: draw,
    answer: () => {
      if (show.value !== "top") forget();
    },
  };
}
