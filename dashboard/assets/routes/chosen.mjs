// What is chosen in the picture of routes: a route with its layers, heads and words, cut or swapped; or a word.

import { button, element, recordsTable, svg } from "../dom.mjs";
import { json, messageOf } from "../http.mjs";
import { chance, flips, layersOf, listed, nats, wordText } from "./arcs.mjs";

/** @typedef {import("./routes.mjs").RoutesView} RoutesView */

/** @param {string} name @param {Child[]} children */
const part = (name, ...children) => element("section", {}, element("h3", {}, name), ...children);

/** @param {Child[]} children */
const note = (...children) => element("p", { class: "wb-note", dir: "auto" }, ...children);

/** @param {RoutesView} view @param {string} title @param {Child[]} said */
const head = (view, title, ...said) =>
  element(
    "div",
    { class: "wb-route-head" },
    element("h3", { dir: "auto" }, title),
    element("span", { class: "wb-quiet" }, ...said),
    button("Close", { class: "wb-link", onclick: () => view.choose("", view.chosen) }),
  );

/** @param {RoutesView} view @param {RoutesValue} value @param {WordRoute} route */
export function ofRoute(view, value, route) {
  const [from, to] = [route.source, route.destination].map((i) => wordText(value.words[i].text)),
    { layers, carried, features, usual } = route,
    again = route.with_words.length ? " Earlier occurrences of the word are cut with it." : "";
  return [
    head(
      view,
      `${from} → ${to}`,
      `Cut, the answer loses ${nats(route.effect)} nats; the whole distribution moves by ${nats(route.kl)} nats (KL).`,
      usual === null ? "" : ` The same edge on other prompts: ${nats(usual)} nats.`,
      again,
    ),
    element(
      "div",
      { class: "wb-route-parts" },
      cutting(view, value, route),
      swapping(view, value, route),
      layers ? part("In which layers", curves(layers), heads(view, value, layers)) : lacking(view, value, route),
      carried || features.length ? carrying(carried, features, value.lens) : null,
    ),
  ].filter((child) => child !== null);
}

/** A switch that cuts the route in the picture, and the likeliest tokens. @param {RoutesView} view @param {RoutesValue} value @param {WordRoute} route */
function cutting(view, value, route) {
  const table = element("div", { class: "wb-scroll", hidden: !view.cut });
  const box = element("input", {
    type: "checkbox",
    checked: view.cut,
    onchange: () => {
      view.cut = box.checked;
      table.hidden = !box.checked;
      view.draw();
    },
  });
  const of = (/** @type {LikelyToken[]} */ tokens, /** @type {string} */ text) => {
    const found = tokens.find((token) => token.text === text);
    return found ? chance(found.probability) : "–";
  };
  const texts = [...new Set([...value.says.slice(0, 4), ...route.after.slice(0, 4)].map(({ text }) => text))],
    rows = texts.map((text) => [wordText(text), of(value.says, text), of(route.after, text)]);
  table.append(recordsTable(["next token", "before", "cut"], rows));
  return part("Without it", element("label", { class: "wb-field" }, box, "cut it"), table);
}

/** The field "swap with", and what was swapped. @param {RoutesView} view @param {RoutesValue} value @param {WordRoute} route */
function swapping(view, value, { source, destination }) {
  const word = wordText(value.words[source].text);
  const said = element("div", { role: "status" }),
    field = element("input", { class: "wb-native", type: "text", "aria-label": `Swap ${word} with`, size: 12 });
  const done = value.swaps.filter((swap) => swap.source === source && swap.destination === destination);
  const go = button("Swap", { type: "submit" });
  const form = element("form", { class: "wb-controls" }, "swap with ", field, go);
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    if (!field.value.trim()) return said.replaceChildren(note("Type a word that could stand there."));
    go.disabled = true;
    said.replaceChildren(note("reading the other prompt …"));
    const { text, model, chat, nulls } = value.settings,
      asked = { text, model, chat, nulls, source, destination, instead: field.value.trim(), visitor: view.visitor };
    try {
      const swap = /** @type {RouteSwap} */ (await json("/api/act/swap_route", asked));
      value.swaps.push({ ...swap, asked: true });
      view.draw();
    } catch (error) {
      said.replaceChildren(element("p", { class: "wb-notice wb-notice-error", role: "alert" }, messageOf(error)));
    }
    go.disabled = false;
  });
  return part("With the values of another word", form, said, ...done.reverse().map(swapped));
}

/** A swap in words and numbers. @param {RouteSwap} swap */
function swapped(swap) {
  const [answer, other] = [swap.answer, swap.counterpart].map((text) => wordText(text)),
    share =
      Math.abs(swap.whole) > 1e-6
        ? `, ${Math.round((100 * swap.after.moved) / swap.whole)} % of all edges out of the word`
        : "",
    rest = swap.others === null ? "" : ` All other edges: ${nats(swap.others)}.`,
    best = swap.null.length
      ? ` Null, ${swap.null.length} unrelated values of equal norm: at most ${nats(Math.max(...swap.null))}.`
      : "",
    says = flips(swap) ? "it says " : `no flip: it still says `;
  const rows = [
    [answer, chance(swap.before.answer), chance(swap.after.answer)],
    [other, chance(swap.before.counterpart), chance(swap.after.counterpart)],
  ];
  return element(
    "div",
    { class: "wb-route-swap" },
    element(
      "p",
      { dir: "auto" },
      "With ",
      element("em", {}, wordText(swap.instead)),
      ` ${says}`,
      element("strong", {}, wordText(swap.says[0]?.text ?? "")),
    ),
    recordsTable(["next token", "before", "after"], rows),
    note(
      `Moved ${nats(swap.after.moved)} nats towards ${other}${share}.${rest}${best}${swap.aligned ? " The words differ in tokens; their ends were aligned." : ""}`,
    ),
  );
}

/** Where layers and words were not measured: a button that does. @param {RoutesView} view @param {RoutesValue} value @param {WordRoute} route */
function lacking(view, value, route) {
  if (view.asking) return part("In which layers", note("measuring …"));
  const { text, model, chat, answer } = value.settings,
    { source, destination } = route,
    said = element("div", { role: "status" });
  const go = button("Measure its layers and words", {
    onclick: async () => {
      go.disabled = true;
      said.replaceChildren(note("cutting it layer by layer …"));
      try {
        const asked = { text, model, chat, answer, source, destination, visitor: view.visitor };
        Object.assign(route, await json("/api/act/route", asked));
        view.draw();
      } catch (error) {
        said.replaceChildren(note(messageOf(error)));
        go.disabled = false;
      }
    },
  });
  return part("In which layers", go, said);
}

/** Heads, as links to their pages where the workspace has them over a text. @param {RoutesView} view @param {RoutesValue} value @param {RouteLayers} layers */
function heads(view, { settings }, layers) {
  const pages = /** @type {Record<string, string>} */ (JSON.parse(view.root.dataset.heads ?? "{}"))[settings.model];
  const rows = layers.heads.map(({ layer, head: number, effect, attention }) => {
    const name = `L${layer}H${number}`;
    return [
      pages ? element("a", { class: "wb-link", href: pages + name }, name) : name,
      nats(effect),
      attention.toFixed(2),
    ];
  });
  return recordsTable(["head", "effect (nats)", "attention"], rows);
}

/** @param {CarriedWords | null} carried @param {CarriedFeature[]} features @param {string} lens */
function carrying(carried, features, lens) {
  const lines = features.map(({ features: set, number, label, fall, null: null_ }) =>
    element(
      "li",
      {},
      element("a", { class: "wb-link", href: `/feature/${encodeURIComponent(set)}/${number}` }, `${number}`),
      element("span", { dir: "auto" }, ` ${wordText(label || "no label", 60)} `),
      element("span", { class: "wb-quiet" }, `falls by ${nats(fall)}, null ${nats(null_)}`),
    ),
  );
  return part(
    "What it carries",
    carried && element("p", { dir: "auto" }, element("strong", {}, listed(carried.words, 8) || "not in words")),
    carried &&
      note(
        `Strength ${carried.strength.toFixed(1)}, null ${carried.null.toFixed(1)} (standard deviations, ${lens || "no"} lens).`,
        carried.words.length
          ? ` With the MLPs of the destination held, the first is ${carried.without_mlps ? "still" : "no longer"} read.`
          : "",
      ),
    lines.length ? element("ul", {}, ...lines) : null,
  );
}

/** @param {RoutesView} view @param {RoutesValue} value @param {number} number */
export function ofWord(view, value, number) {
  const word = value.words[number],
    lines = word.stations.map((station) => [
      layersOf(station),
      nats(station.effect),
      (listed(station.words, 6) || "not in words") + (station.restates ? " (restates the token)" : ""),
    ]),
    ends = value.routes.filter((route) => route.source === number || route.destination === number);
  return [
    head(
      view,
      wordText(word.text, 60),
      `Unseen by every later word, the answer loses ${nats(word.total)} nats; KL ${nats(word.kl)}.`,
    ),
    element(
      "div",
      { class: "wb-route-parts" },
      part(
        "What its MLPs add",
        lines.length ? recordsTable(["layers", "effect (nats)", "words"], lines) : note("Nothing above the floor."),
      ),
      ends.length
        ? part(
            "Its routes",
            element(
              "ul",
              {},
              ...ends.map((route) => element("li", {}, view.opener(value, route), ` ${nats(route.effect)} nats`)),
            ),
          )
        : null,
    ),
  ];
}

/** The effect of a route cut from a layer on, and up to one, as two lines. @param {RouteLayers} layers */
function curves({ from_layer: from, up_to: upTo, first, last }) {
  const n = Math.max(1, from.length - 1),
    low = Math.min(...from, ...upTo, 0),
    top = Math.max(...from, ...upTo, 0.01),
    x = (/** @type {number} */ layer) => 6 + (228 * layer) / n,
    y = (/** @type {number} */ effect) => 80 - (72 * (effect - low)) / (top - low),
    line = (/** @type {number[]} */ values, /** @type {string} */ look) =>
      svg("polyline", { points: values.map((v, i) => `${x(i).toFixed(1)},${y(v).toFixed(1)}`).join(" "), class: look });
  const number = (/** @type {number} */ layer, /** @type {string} */ anchor) =>
    svg("text", { x: x(layer), y: 96, "text-anchor": anchor, class: "wb-arc-small" }, `${layer}`);
  return element(
    "figure",
    {},
    svg(
      "svg",
      { viewBox: "0 0 240 100", role: "img", "aria-label": `Effect by layer; it lies in ${layersOf({ first, last })}` },
      svg("rect", {
        x: x(first - 0.5),
        y: 4,
        width: (228 * (last - first + 1)) / n,
        height: 78,
        class: "wb-route-band",
      }),
      svg("path", { d: `M0 ${y(0)}H240`, class: "wb-arc-tick" }),
      line(from, "wb-route-from"),
      line(upTo, "wb-route-to"),
      number(first, last === first ? "middle" : "end"),
      last === first ? "" : number(last, "start"),
    ),
    element(
      "figcaption",
      { class: "wb-quiet" },
      "Nats lost where it is cut ",
      element("span", { class: "wb-route-from" }, "from this layer on"),
      " and ",
      element("span", { class: "wb-route-to" }, "up to it"),
      `. Band: ${layersOf({ first, last })}.`,
    ),
  );
}
