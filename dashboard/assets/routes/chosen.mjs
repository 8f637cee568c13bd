// What is chosen in the picture of routes: a route with its layers, heads and words, cut or swapped; or a word.

import { button, element, recordsTable, short, svg } from "../dom.mjs";
import { json, messageOf } from "../http.mjs";
import { percent } from "../prompt/draw.mjs";
import { layersOf, listed, swapsOf, wordText } from "./arcs.mjs";

const HEADS = 6; // of a route, that are named

/** @typedef {import("./routes.mjs").RoutesView} RoutesView */

/** @param {string} name @param {Child[]} children */
const part = (name, ...children) => element("section", {}, element("h3", {}, name), ...children);
/** @param {Child[]} children */
export const note = (...children) => element("p", { class: "wb-note", dir: "auto" }, ...children);

/** @param {RoutesView} view @param {string} title @param {string} said @param {Child[]} parts */
const panel = (view, title, said, ...parts) => [
  element(
    "div",
    { class: "wb-route-head" },
    element("h3", { dir: "auto" }, title),
    element("span", { class: "wb-quiet" }, said),
    button("Close", { class: "wb-link", onclick: () => view.choose("", view.chosen) }),
  ),
  element("div", { class: "wb-route-parts" }, ...parts),
];

/** @param {RoutesView} view @param {RoutesValue} value @param {WordRoute} route */
export function ofRoute(view, value, route) {
  const [from, to] = [route.source, route.destination].map((i) => wordText(value.words[i].text)),
    { layers, carried, features, usual } = route,
    elsewhere = usual === null ? "" : ` Usual, the same edge on other prompts: ${short(usual)} nats.`,
    again = route.with_words.length ? " Earlier occurrences of the word are cut with it." : "",
    lost = `Cut, the answer loses ${short(route.effect)} nats; KL of all next tokens ${short(route.kl)} nats.`;
  return panel(
    view,
    `${from} → ${to}`,
    lost + elsewhere + again,
    swapping(view, value, route, from),
    cutting(view, value, route),
    layers ? part("In which layers", curves(layers), heads(view, value, layers)) : measuring(view, value, route),
    carried || features.length ? carrying(carried, features, value.lens) : null,
  );
}

/** A switch that cuts the route in the picture, and the likeliest tokens. @param {RoutesView} view @param {RoutesValue} value @param {WordRoute} route */
function cutting(view, { says }, { after }) {
  const box = element("input", { type: "checkbox", checked: view.cut });
  box.addEventListener("change", () => {
    view.cut = box.checked;
    view.draw();
  });
  const texts = [...new Set([...says.slice(0, 3), ...after.slice(0, 3)].map(({ text }) => text))],
    of = (/** @type {TokenChance[]} */ tokens, /** @type {string} */ text) =>
      tokens.filter((token) => token.text === text).map(({ probability }) => percent(probability))[0] ?? "–",
    rows = texts.map((text) => [wordText(text), of(says, text), of(after, text)]);
  const table = recordsTable(["next token", "before", "cut"], rows);
  return part("Without it", element("label", { class: "wb-field" }, box, "cut it in the picture"), table);
}

/** A button that asks the model and draws what it says; what goes wrong stands beside it. @param {RoutesView} view @param {RoutesValue} value @param {string} text @param {string} act @param {() => object} body @param {(found: unknown) => void} take */
function asker(view, value, text, act, body, take) {
  const said = element("p", { class: "wb-note", role: "status" });
  const go = button(text, {
    onclick: async () => {
      const { text, model, chat } = value.settings;
      go.disabled = true;
      said.textContent = "asking the model …";
      try {
        take(await json(`/api/act/${act}`, { text, model, chat, visitor: view.visitor, ...body() }));
        view.draw();
      } catch (error) {
        said.textContent = messageOf(error);
      }
      go.disabled = false;
    },
  });
  return { go, said };
}

/** The field "swap with", and what was swapped. @param {RoutesView} view @param {RoutesValue} value @param {WordRoute} route @param {string} word */
function swapping(view, value, route, word) {
  const field = element("input", { class: "wb-native", type: "text", "aria-label": `Swap ${word} with`, size: 12 }),
    { source, destination } = route,
    body = () => ({ source, destination, instead: field.value.trim(), nulls: value.settings.nulls }),
    take = (/** @type {unknown} */ found) => value.swaps.push(/** @type {RouteSwap} */ (found)),
    { go, said } = asker(view, value, "Swap", "swap_route", body, take);
  field.addEventListener("keydown", ({ key }) => key === "Enter" && go.click());
  const line = element("div", { class: "wb-controls" }, "swap with ", field, go);
  return part(`With the values of another word`, line, said, ...swapsOf(value, route).map(swapped));
}

/** A swap in words and numbers. @param {RouteSwap} swap */
function swapped({ before, after, whole, others, null: null_, aligned, ...swap }) {
  const [answer, other, says] = [swap.answer, swap.counterpart, swap.says[0].text].map((text) => wordText(text)),
    share = Math.abs(whole) > 1e-6 ? `, ${Math.round((100 * after.moved) / whole)} % of all edges of the word` : "",
    rest = others === null ? "" : ` All others: ${short(others)}.`,
    least = null_.length ? ` Null, ${null_.length} unrelated values: at most ${short(Math.max(...null_))}.` : "",
    ends = aligned ? " The words differ in tokens: their ends were aligned." : "",
    verb = says === other ? "it flips and says " : "it does not flip, and says ";
  const rows = [
    [answer, percent(before.answer), percent(after.answer)],
    [other, percent(before.counterpart), percent(after.counterpart)],
  ];
  return element(
    "div",
    { class: "wb-route-swap" },
    element("p", { dir: "auto" }, `${wordText(swap.instead)}: `, verb, element("strong", {}, says)),
    recordsTable(["next token", "before", "after"], rows),
    note(`Moves ${short(after.moved)} nats to ${other}${share}.${rest}${least}${ends}`),
  );
}

/** Where layers and words were not measured: a button that does. @param {RoutesView} view @param {RoutesValue} value @param {WordRoute} route */
function measuring(view, value, route) {
  if (view.asking) return part("In which layers", note("measuring …"));
  const { source, destination, usual, with_words } = route,
    body = () => ({ answer: value.settings.answer, source, destination }),
    take = (/** @type {unknown} */ found) => Object.assign(route, found, { usual, with_words }),
    { go, said } = asker(view, value, "Measure", "route", body, take);
  return part("In which layers, with which words", go, said);
}

/** Heads, as links to their pages where the workspace has them. @param {RoutesView} view @param {RoutesValue} value @param {RouteLayers} layers */
function heads(view, { settings }, layers) {
  const pages = JSON.parse(view.root.dataset.heads ?? "{}")[settings.model];
  const rows = layers.heads.slice(0, HEADS).map(({ layer, head, effect, attention }) => {
    const name = `L${layer}H${head}`,
      link = pages ? element("a", { class: "wb-link", href: pages + name }, name) : name;
    return [link, short(effect), short(attention)];
  });
  return recordsTable(["head", "effect (nats)", "attention"], rows);
}

/** @param {CarriedWords | null} carried @param {CarriedFeature[]} features @param {string} lens */
function carrying(carried, features, lens) {
  const lines = features.map(({ features: set, number, label, fall, null: most }) => {
    const given = { class: "wb-link", href: `/feature/${encodeURIComponent(set)}/${number}`, dir: "auto" },
      name = `${number} ${wordText(label || "no label", 60)}`;
    return element("li", {}, element("a", given, name), ` falls by ${short(fall)}, null ${short(most)}`);
  });
  const held = carried?.without_mlps ? "still read" : "not read",
    mlps = carried?.words.length ? ` With the MLPs of the destination held, the first is ${held}.` : "",
    strength = carried && `${short(carried.strength)} standard deviations (${lens} lens), null ${short(carried.null)}.`;
  return part(
    "What it carries",
    carried && element("strong", { dir: "auto" }, listed(carried.words, 8) || "not in words"),
    carried && note(strength, mlps),
    element("ul", {}, ...lines),
  );
}

/** @param {RoutesView} view @param {RoutesValue} value @param {RouteWord} word */
export function ofWord(view, value, word) {
  const number = value.words.indexOf(word),
    lost = `Where no later word sees it, the answer loses ${short(word.total)} nats; KL ${short(word.kl)} nats.`,
    rows = word.stations.map((one) => [
      layersOf(one),
      short(one.effect),
      (listed(one.words, 6) || "not in words") + (one.restates ? " (restates the token)" : ""),
    ]),
    added = rows.length ? recordsTable(["its MLPs in", "effect (nats)", "add"], rows) : note("Nothing measured."),
    ends = value.routes.filter(({ source, destination }) => [source, destination].includes(number)),
    routes = ends.map((route) => element("li", {}, view.opener(value, route), ` ${short(route.effect)} nats`)),
    parts = [part("What it adds", added), part("Its routes", element("ul", {}, ...routes))];
  return panel(view, wordText(word.text, 60), lost, ...parts);
}

/** The effect of a route cut from a layer on, and up to one, as two lines. @param {RouteLayers} layers */
function curves({ from_layer: from, up_to: upTo, first, last, step }) {
  const wide = 228 / (from.length * step),
    [low, top] = [Math.min(...from, ...upTo, 0), Math.max(...from, ...upTo, 0.01)],
    where = layersOf({ first, last }),
    band = { x: 6 + wide * first, y: 4, width: wide * (last - first + 1), height: 80, class: "wb-route-band" };
  /** Points lie where a layer begins, or ends. @param {number[]} values @param {number} end @param {string} look */
  const line = (values, end, look) => {
    const points = values.map((v, i) => `${6 + wide * step * (i + end)},${80 - (72 * (v - low)) / (top - low)}`);
    return svg("polyline", { points: points.join(" "), class: look });
  };
  const lines = [svg("rect", band), line(from, 0, "wb-route-from"), line(upTo, 1, "wb-route-to")],
    said = `Band: ${where}. Effect where it is cut from a layer on (blue), up to one (orange).`;
  return element(
    "figure",
    {},
    svg("svg", { viewBox: "0 0 240 88", role: "img", "aria-label": `Effect by layer, mostly in ${where}` }, ...lines),
    element("figcaption", { class: "wb-quiet" }, said),
  );
}
