// Elements, made without markup: text is never parsed as HTML.

/** `element("button", {class: "x", onclick: f, "aria-label": "..."}, "text", child)` */
export function element(tag, given = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(given)) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (name === "style" && typeof value === "object") {
      for (const [part, text] of Object.entries(value)) made.style.setProperty(part, text);
    } else if (name === "value" || name === "textContent") made[name] = value;
    else made.setAttribute(name, value === true ? "" : value);
  }
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
}

/** A line drawing of 16 x 16 from path data. */
export function icon(path) {
  const space = "http://www.w3.org/2000/svg";
  const svg = document.createElementNS(space, "svg");
  svg.setAttribute("viewBox", "0 0 16 16");
  svg.setAttribute("aria-hidden", "true");
  const line = document.createElementNS(space, "path");
  line.setAttribute("d", path);
  svg.append(line);
  return svg;
}

/** Token text on one line: line breaks as ↵, tabs as ⇥, lone spaces as ␣, cut at `most` characters. */
export function visible(text, most = Infinity) {
  let shown = String(text ?? "")
    .replace(/\r\n|\r|\n/g, "↵")
    .replace(/\t/g, "⇥");
  if (shown && !shown.trim()) shown = "␣".repeat(shown.length);
  const letters = Array.from(shown.slice(0, 2 * most));
  return letters.length > most ? `${letters.slice(0, most - 1).join("")}…` : shown;
}

export const count = (n) => Number(n).toLocaleString("en-US");

/** A number with three significant digits. */
export function short(value) {
  if (value === null || value === undefined || !Number.isFinite(Number(value))) return "–";
  const v = Number(value),
    size = Math.abs(v);
  if (Number.isInteger(v) && size < 1e7) return count(v);
  return size !== 0 && (size < 0.001 || size >= 1e6) ? v.toExponential(2) : String(Number(v.toPrecision(3)));
}
