// Elements, made without markup: text is never parsed as HTML.

/**
 * `element("button", {class: "x", onclick: f, "aria-label": "..."}, "text", child)`
 * @template {keyof HTMLElementTagNameMap} T
 * @param {T} tag @param {Attributes} [given] @param {...Child} children
 */
export function element(tag, given = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(given)) {
    if (value === undefined || value === null || value === false) continue;
    if (typeof value === "function") made.addEventListener(name.slice(2), /** @type {EventListener} */ (value));
    else if (name === "style" && typeof value === "object") {
      for (const [part, text] of Object.entries(value)) made.style.setProperty(part, String(text));
    } else if (name === "value" || name === "textContent") Object.assign(made, { [name]: value });
    else made.setAttribute(name, value === true ? "" : String(value));
  }
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
}

/** A small button; a class in `given` replaces its own. @param {string} text @param {Attributes} given */
export const button = (text, given) =>
  element("button", { type: "button", class: "wb-act wb-act-quiet", ...given }, text);

/**
 * A menu of `[value, text]` with a name for screen readers; `change` is called with the value that is chosen.
 * @param {string} label @param {string[][]} choices @param {string} value @param {(value: string) => void} [change]
 * @param {Attributes} [given]
 */
export function menu(label, choices, value, change = () => {}, given = {}) {
  const made = element("select", { class: "wb-native", "aria-label": label, ...given });
  made.append(...choices.map(([key, text]) => element("option", { value: key }, text)));
  made.value = value;
  made.addEventListener("change", () => change(made.value));
  return made;
}

/** An element that the page has. @param {string} id */
export function byId(id) {
  const found = document.getElementById(id);
  if (!found) throw new Error(`the page has no element #${id}`);
  return found;
}

/** All elements that match, of the page or of a part of it. @param {string} selector @param {ParentNode} [root] */
export const all = (selector, root = document) => /** @type {HTMLElement[]} */ ([...root.querySelectorAll(selector)]);

/**
 * The nearest element around the target of an event that matches, or null.
 * @param {Event} event @param {string} selector
 */
export function under(event, selector) {
  return event.target instanceof Element ? /** @type {HTMLElement | null} */ (event.target.closest(selector)) : null;
}

/** @param {HTMLCanvasElement} canvas @param {CanvasRenderingContext2DSettings} [settings] */
export function contextOf(canvas, settings) {
  const context = canvas.getContext("2d", settings);
  if (!context) throw new Error("this browser gives no canvas to draw on");
  return context;
}

/** A table of records. @param {string[]} names @param {Child[][]} rows */
export function recordsTable(names, rows) {
  const line = (/** @type {Node[]} */ cells) => element("tr", {}, ...cells);
  return element(
    "table",
    { class: "wb-evidence wb-records" },
    element("thead", {}, line(names.map((name) => element("th", { scope: "col" }, name)))),
    element("tbody", {}, ...rows.map((row) => line(row.map((cell) => element("td", {}, cell))))),
  );
}

/**
 * An element of a drawing; numbers have two digits after the point.
 * @param {string} tag @param {Record<string, string | number>} given @param {...(Node | string)} children
 */
export function svg(tag, given, ...children) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(given))
    made.setAttribute(name, typeof value === "number" ? String(Number(value.toFixed(2))) : value);
  made.append(...children);
  return made;
}

/** A line drawing of 16 x 16 from path data. @param {string} path */
export const icon = (path) => svg("svg", { viewBox: "0 0 16 16", "aria-hidden": "true" }, svg("path", { d: path }));

/**
 * Token text on one line: line breaks as ↵, tabs as ⇥, lone spaces as ␣, cut at `most` characters.
 * @param {unknown} text @param {number} [most]
 */
export function visible(text, most = Infinity) {
  let shown = String(text ?? "")
    .replace(/\r\n|\r|\n/g, "↵")
    .replace(/\t/g, "⇥");
  if (shown && !shown.trim()) shown = "␣".repeat(shown.length);
  const letters = Array.from(shown.slice(0, 2 * most));
  return letters.length > most ? `${letters.slice(0, most - 1).join("")}…` : shown;
}

/** @param {number} n */
export const count = (n) => Number(n).toLocaleString("en-US");

/** A number with its sign. @param {number} value */
export const signed = (value) => (value > 0 ? "+" : "") + short(value).replace("-", "−");

/** A number with three significant digits. @param {unknown} value */
export function short(value) {
  if (value === null || value === undefined || !Number.isFinite(Number(value))) return "–";
  const v = Number(value),
    size = Math.abs(v);
  if (Number.isInteger(v) && size < 1e7) return count(v);
  return size !== 0 && (size < 0.001 || size >= 1e6) ? v.toExponential(2) : String(Number(v.toPrecision(3)));
}

/** Call a function in the frame after the page changed, once for all changes. @param {() => void} draw @param {MutationObserverInit} what */
export function whenChanged(draw, what) {
  let due = false;
  new MutationObserver(() => {
    if (due) return;
    due = true;
    requestAnimationFrame(() => {
      due = false;
      draw();
    });
  }).observe(document, { subtree: true, ...what });
}
