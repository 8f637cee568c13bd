// Attention: every head in small on one canvas, and one head in large. A click keeps a cell; its reasons are asked for.

import { byId, element } from "../dom.mjs";
import {
  ask,
  bytes,
  colours,
  failed,
  fit,
  picture,
  pointing,
  rooted,
  settled,
  spaced,
  table,
  within,
} from "./draw.mjs";

const LEFT = 76, // room for the names of tokens
  LEAST = 5, // a cell in pixels; a prompt that needs more room scrolls
  MOST = 24,
  LETTERS = 11;

/** @param {PromptState} state */
export function heads(state) {
  const holder = byId("prompt-heads");
  const { n_layers: nLayers, n_heads: nHeads, patterns } = state.reading;
  const data = bytes(patterns),
    side = patterns.shape[3];
  const canvas = element("canvas", {
    tabindex: 0,
    role: "img",
    "aria-describedby": "prompt-heads-words",
    "aria-label": "Attention of every head in small: layers up, heads across; arrow keys choose a head",
  });
  const scroll = element("div", { class: "wb-all-heads", tabindex: -1 }, canvas);
  const words = element("p", { class: "wb-readout", id: "prompt-heads-words", "aria-live": "polite" });
  holder.replaceChildren(scroll, words);
  /** @type {[layer: number, head: number] | null} */
  let hovered = null;
  let mosaic = document.createElement("canvas");
  let size = 24,
    scheme = "";
  const BESIDE = 30,
    TOP = 16;

  // Heads lie one below the other in the data; the picture is as wide as one of them.
  function draw() {
    if (!scroll.isConnected) return;
    const c = colours();
    if (scheme !== c.text) mosaic = picture(data, side, data.length / side, rooted(table(c.scale)));
    scheme = c.text;
    const room = Math.floor((scroll.clientWidth - BESIDE - 8) / nHeads);
    size = Math.max(16, Math.min(60, room));
    const context = fit(canvas, BESIDE + nHeads * size, TOP + nLayers * size);
    context.imageSmoothingEnabled = false;
    context.font = "10px sans-serif";
    context.textBaseline = "middle";
    context.textAlign = "center";
    context.fillStyle = c.muted;
    for (let head = 0; head < nHeads; head++) context.fillText(String(head), BESIDE + (head + 0.5) * size, TOP / 2);
    for (let layer = 0; layer < nLayers; layer++) {
      context.fillStyle = c.muted;
      context.fillText(`L${layer}`, BESIDE / 2, above(layer) + 0.5 * size);
      for (let head = 0; head < nHeads; head++) {
        const from = (layer * nHeads + head) * side;
        context.drawImage(mosaic, 0, from, side, side, BESIDE + head * size + 1, above(layer) + 1, size - 2, size - 2);
      }
    }
    frame(context, state.selection.layer, state.selection.head, c.opposite);
    if (hovered) frame(context, ...hovered, c.text);
    const [layer, head] = hovered || [state.selection.layer, state.selection.head];
    words.textContent = `L${layer}H${head}${hovered ? "" : ", the chosen head"}`;
  }

  /** @param {CanvasRenderingContext2D} context @param {number} layer @param {number} head @param {string} colour */
  function frame(context, layer, head, colour) {
    context.strokeStyle = colour;
    context.lineWidth = 2;
    context.strokeRect(BESIDE + head * size, above(layer), size, size);
  }

  /** @param {number} layer */
  const above = (layer) => TOP + (nLayers - 1 - layer) * size;

  /** @param {MouseEvent} event @returns {[layer: number, head: number] | null} */
  function at(event) {
    const box = canvas.getBoundingClientRect();
    const head = Math.floor((event.clientX - box.left - BESIDE) / size),
      layer = nLayers - 1 - Math.floor((event.clientY - box.top - TOP) / size);
    return head >= 0 && head < nHeads && layer >= 0 && layer < nLayers ? [layer, head] : null;
  }

  pointing(canvas, {
    at,
    over: (cell) => {
      hovered = cell;
      draw();
    },
    choose: ([layer, head]) => state.select({ layer, head }),
    move: (right, up) => {
      const { layer, head } = state.selection;
      state.select({ layer: within(layer + up, nLayers - 1), head: within(head + right, nHeads - 1) });
    },
  });
  new ResizeObserver(draw).observe(scroll);
  let shown = -1; // the layer that was in view last
  function select() {
    draw();
    const y = above(state.selection.layer);
    if (
      shown !== state.selection.layer &&
      (y < scroll.scrollTop || y + size > scroll.scrollTop + scroll.clientHeight)
    ) {
      scroll.scrollTop = y - scroll.clientHeight / 2;
    }
    shown = state.selection.layer;
  }
  return { select, paint: draw };
}

/** @param {PromptState} state */
export function pattern(state) {
  const holder = byId("prompt-pattern"),
    title = byId("prompt-pattern-title");
  const tokens = state.reading.tokens,
    n = tokens.length;
  const canvas = element("canvas", {
    tabindex: 0,
    role: "img",
    "aria-describedby": "prompt-pattern-words",
    "aria-label": "Attention of the chosen head: destinations down, sources across; arrow keys move the cell",
  });
  const whole = element("div", {}, canvas);
  const scroll = element("div", { class: "wb-pattern", tabindex: -1 }, whole);
  const words = element("p", { class: "wb-readout", id: "prompt-pattern-words", "aria-live": "polite" });
  const list = element("p", { class: "wb-note" });
  holder.replaceChildren(scroll, words, list);
  /** @type {Uint16Array | null} */
  let weights = null;
  /** @type {HTMLCanvasElement | null} */
  let image = null;
  /** @type {[dest: number, src: number] | null} */
  let hovered = null;
  /** @type {AbortController | null} */
  let wanted = null;
  let scheme = "",
    shown = "",
    cell = LEAST;

  const load = settled(30, async () => {
    const { layer, head } = state.selection;
    if (wanted) wanted.abort();
    wanted = new AbortController();
    try {
      const found = await ask("attention", { ...state.asking(), layer, head }, wanted.signal);
      if (!found) return;
      weights = new Uint16Array(bytes(found.cells).buffer);
      image = null;
      title.textContent = `Attention of L${layer}H${head}`;
      draw();
      reveal();
      attend();
    } catch (error) {
      words.replaceChildren(failed(error));
    }
  });

  /** @param {number} dest @param {number} src */
  const weight = (dest, src) => (weights?.[dest * n + src] ?? 0) / 65535;

  function draw() {
    if (!weights || !scroll.isConnected) return;
    const c = colours();
    if (!image || scheme !== c.text) {
      const shades = Uint8Array.from(weights, (value) => value >> 8);
      image = picture(shades, n, n, rooted(table(c.scale)), (x, y) => x > y);
    }
    scheme = c.text;
    cell = Math.max(LEAST, Math.min(MOST, (scroll.clientWidth - LEFT - 1) / n));
    const side = LEFT + n * cell + 1;
    whole.style.width = whole.style.height = `${side}px`;
    const width = Math.min(side, scroll.clientWidth),
      height = Math.min(side, scroll.clientHeight);
    const context = fit(canvas, width, height);
    const x = LEFT - scroll.scrollLeft,
      y = LEFT - scroll.scrollTop;
    name(context, c, x, y, width, height);
    context.beginPath();
    context.rect(LEFT - 1, LEFT - 1, width, height);
    context.clip();
    context.imageSmoothingEnabled = false;
    context.drawImage(image, x, y, n * cell, n * cell);
    const { token, key } = state.selection;
    context.strokeStyle = c.opposite;
    context.lineWidth = 1.5;
    context.strokeRect(x, y + token * cell, (token + 1) * cell, cell);
    if (key !== null && key <= token) context.strokeRect(x + key * cell, y + token * cell, cell, cell);
    if (hovered) {
      context.strokeStyle = c.text;
      context.strokeRect(x + hovered[1] * cell, y + hovered[0] * cell, cell, cell);
    }
    read();
  }

  /**
   * Names of the rows and columns that are seen: every n-th that has room, and the chosen one.
   * @param {CanvasRenderingContext2D} context @param {PromptTheme} c @param {number} x @param {number} y
   * @param {number} width @param {number} height
   */
  function name(context, c, x, y, width, height) {
    context.font = `11px ${getComputedStyle(holder).getPropertyValue("--wb-mono")}`;
    context.textBaseline = "middle";
    const step = Math.ceil(LETTERS / cell),
      { token } = state.selection;
    for (let i = 0; i < n; i++) {
      if (i !== token && (i % step || Math.abs(i - token) < step)) continue;
      const across = x + (i + 0.5) * cell,
        down = y + (i + 0.5) * cell;
      context.fillStyle = i === token ? c.accent : c.text;
      context.textAlign = "right";
      if (down > LEFT && down < height) context.fillText(spaced(tokens[i], 10), LEFT - 4, down, LEFT - 6);
      if (across < LEFT || across > width) continue;
      context.save();
      context.translate(across, LEFT - 4);
      context.rotate(-Math.PI / 2);
      context.textAlign = "left";
      context.fillText(spaced(tokens[i], 10), 0, 0, LEFT - 6);
      context.restore();
    }
  }

  function read() {
    const { token, key } = state.selection;
    const [dest, src] = hovered || [token, key];
    if (src === null || src === undefined) {
      words.textContent = "move over the picture to read a cell; a click explains it";
    } else {
      words.textContent =
        `${spaced(tokens[dest], 24)} (${dest}) attends to ${spaced(tokens[src], 24)} (${src}): ` +
        `${weight(dest, src).toFixed(3)}; evenly spread it would be ${(1 / (dest + 1)).toFixed(3)}` +
        (hovered ? "" : " · selected; Esc clears it");
    }
    const sources = Array.from({ length: dest + 1 }, (_, i) => [weight(dest, i), i])
      .sort((a, b) => b[0] - a[0])
      .slice(0, 5);
    list.textContent =
      `From ${spaced(tokens[dest], 24)}: ` +
      sources.map(([w, i]) => `${spaced(tokens[i], 16)} (${i}) ${w.toFixed(2)}`).join(" · ");
  }

  // The row under the mouse, or the chosen one, colours the tokens above.
  function attend() {
    if (!weights) return;
    const dest = hovered ? hovered[0] : state.selection.token;
    state.attention = tokens.map((_, i) => (i <= dest ? weight(dest, i) : 0));
    if (state.colour === "attention") state.views.tokens.paint?.();
  }

  /** @param {MouseEvent} event @returns {[dest: number, src: number] | null} */
  function at(event) {
    const box = canvas.getBoundingClientRect();
    const across = event.clientX - box.left,
      down = event.clientY - box.top;
    if (across < LEFT || down < LEFT) return null;
    const src = Math.floor((across - LEFT + scroll.scrollLeft) / cell),
      dest = Math.floor((down - LEFT + scroll.scrollTop) / cell);
    return dest >= 0 && dest < n && src >= 0 && src <= dest ? [dest, src] : null;
  }

  pointing(canvas, {
    at,
    over: (cell) => {
      hovered = cell;
      draw();
      attend();
    },
    choose: ([token, key]) => state.select({ token, key }),
    move: (right, up) => {
      const { token, key } = state.selection,
        dest = within(token - up, n - 1);
      state.select({ token: dest, key: within((key ?? dest) + right, dest) });
    },
  });
  canvas.addEventListener("keydown", (event) => {
    if (event.key !== "Escape") return;
    event.preventDefault();
    event.stopPropagation();
    state.select({ key: null });
  });
  new ResizeObserver(draw).observe(scroll);
  scroll.addEventListener("scroll", draw);

  let row = -1; // that was in view last
  function reveal() {
    const { token } = state.selection;
    if (!weights || row === token) return;
    row = token;
    scroll.scrollTop = token * cell - (scroll.clientHeight - LEFT) / 2;
    scroll.scrollLeft = (token + 2) * cell - (scroll.clientWidth - LEFT);
  }

  function select() {
    const key = `${state.selection.layer} ${state.selection.head}`;
    if (key !== shown) {
      shown = key;
      load();
    }
    draw();
    reveal();
    attend();
  }
  return { select, paint: draw };
}
