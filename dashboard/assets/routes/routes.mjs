// Routes of a prompt on a page: a sentence, the picture or its table, and below it what is chosen (chosen.mjs). A value is
// stored (`open`), or comes step by step while the model is asked (`ask`).

import { download } from "../atlas/saving.mjs";
import { all, button, element, recordsTable, short } from "../dom.mjs";
import { json, messageOf, messages, request } from "../http.mjs";
import { percent } from "../prompt/draw.mjs";
import { asFile, draw, keyOf, layersOf, listed, wordText } from "./arcs.mjs";
import { note, ofRoute, ofWord } from "./chosen.mjs";

const FIRST = 6; // arcs that are drawn at first

/** @type {WeakMap<HTMLElement, RoutesView>} */
const views = new WeakMap();

/** The view of an element, made when it is first asked for. @param {HTMLElement} root */
export function viewOf(root) {
  if (!views.has(root)) views.set(root, new RoutesView(root));
  return /** @type {RoutesView} */ (views.get(root));
}

/** True of an edge that does as much on other prompts: a sink of attention. @param {WordRoute} route */
const isUsual = ({ usual, effect }) => usual !== null && Math.abs(usual) >= Math.abs(effect) / 2;

export class RoutesView {
  /** @type {RoutesValue | null} */
  value = null;
  /** @type {AbortController | null} */
  asking = null;
  /** key of the chosen arc (`3-4`) or word (`3`); empty for none */
  chosen = "";
  all = false;
  table = false;
  cut = false;
  visitor = "";
  /** @type {(word: RouteWord) => void} called with a word that is chosen */
  told = () => {};

  /** @param {HTMLElement} root */
  constructor(root) {
    this.root = root;
    this.sentence = element("p", { class: "wb-routes-sentence", dir: "auto" }, ...root.childNodes);
    this.field = element("div", { class: "wb-routes-field wb-scroll" });
    this.tools = element("span", { class: "wb-controls" });
    this.said = element("span", { class: "wb-quiet", role: "status" });
    this.stop = button("Stop", { onclick: () => this.end(), hidden: true });
    this.panel = element("div", { class: "wb-route-open", hidden: true });
    this.enough = element("details", { class: "wb-folded" });
    const foot = element("div", { class: "wb-controls wb-routes-tools" }, this.tools, this.said, this.stop);
    root.replaceChildren(this.sentence, this.field, foot, this.panel, this.enough);
    new ResizeObserver(() => this.field.clientWidth !== this.width && this.draw()).observe(this.field);
    this.field.addEventListener("keydown", (event) => this.key(event));
    root.addEventListener("keydown", ({ key }) => key === "Escape" && this.choose("", this.chosen));
  }

  /** Draw a stored value. @param {string} address */
  open(address) {
    const failed = (/** @type {unknown} */ error) => this.sentence.replaceChildren(messageOf(error));
    json(address).then((value) => this.show(/** @type {RoutesValue} */ (value)), failed);
  }

  /** Ask the model, unless its answer is drawn; what was measured stays where it is stopped. @param {RoutesAsked} asked */
  async ask({ visitor, ...asked }) {
    this.visitor = visitor;
    const { text, model, chat, answer } = this.value?.settings ?? {};
    if (JSON.stringify({ text, model, chat, answer }) === JSON.stringify(asked) && !this.said.textContent) return;
    const mine = new AbortController();
    this.asking = mine;
    this.value = null;
    this.chosen = "";
    this.draw();
    try {
      const body = { ...asked, visitor, nulls: "quick" };
      for await (const step of messages(await request("/api/act/why", body, { signal: mine.signal }))) {
        const value = /** @type {RoutesValue} */ (step);
        if (value.error) throw new Error(value.error);
        if (mine !== this.asking || !this.root.isConnected) return mine.abort();
        this.show(value);
      }
      this.end("");
    } catch (error) {
      if (mine === this.asking) this.end(messageOf(error));
    }
  }

  /** End what is asked; what was measured stays. @param {string} [said] */
  end(said = "Stopped: what was measured stays.") {
    if (!this.asking) return;
    this.asking.abort();
    this.asking = null;
    this.said.textContent = said;
    this.draw();
  }

  /** @param {RoutesValue} value */
  show(value) {
    this.value = value;
    this.draw();
  }

  /** The route that is chosen. */
  get route() {
    return this.value?.routes.find((route) => keyOf(route) === this.chosen) ?? null;
  }

  /** Words and arcs that can be chosen. */
  get items() {
    return all("[data-item]", this.field);
  }

  draw() {
    const { value, route, asking } = this,
      routes = value?.routes ?? [],
      drawn = this.all ? routes : routes.filter((one) => !isUsual(one)).slice(0, FIRST),
      held = this.field.contains(document.activeElement) ? document.activeElement?.getAttribute("data-item") : null;
    this.width = this.field.clientWidth;
    this.stop.hidden = !asking;
    if (asking) this.said.textContent = routes.length ? "measuring layers and words …" : "cutting words and edges …";
    this.sentence.textContent = value?.measured ? (value.headline ?? "") : "";
    for (const part of value ? [] : [this.field, this.tools, this.enough]) part.replaceChildren();
    if (!value) this.panel.hidden = true;
    if (!value || !this.width) return;
    const picture = draw(value, drawn, this.width, this.cut ? route : null),
      left = this.field.firstChild ? this.field.scrollLeft : 1e4; // the answer is at the end
    this.field.replaceChildren(this.table ? this.records(value, drawn) : picture);
    this.field.scrollLeft = left;
    for (const item of this.items) item.addEventListener("click", () => this.choose(item.dataset.item ?? ""));
    this.reach(held ?? this.chosen, held !== null);
    const change = (/** @type {"all" | "table"} */ what) => () => {
        this[what] = !this[what];
        this.draw();
      },
      save = () => download(URL.createObjectURL(asFile(picture)), "routes.svg"),
      usual = routes.filter(isUsual).length,
      more = `${routes.length - drawn.length} more${usual ? `, ${usual} usual` : ""}`,
      hint = "Weaker routes, and usual ones: edges that do as much on other prompts of this length";
    this.tools.replaceChildren(
      routes.length > drawn.length || this.all
        ? button(this.all ? "Fewer" : more, { title: hint, onclick: change("all") })
        : "",
      button(this.table ? "Picture" : "Table", { onclick: change("table") }),
      this.table ? "" : button("Save as SVG", { onclick: save }),
    );
    const few = enough(value);
    this.enough.replaceChildren(...(few ? [element("summary", {}, "How few are enough"), note(few)] : []));
    this.unfold(value);
  }

  /** A button that chooses a route. @param {RoutesValue} value @param {WordRoute} route */
  opener({ words }, route) {
    const ends = [route.source, route.destination].map((i) => wordText(words[i].text));
    return button(ends.join(" → "), { class: "wb-link", dir: "auto", onclick: () => this.choose(keyOf(route)) });
  }

  /** The routes as a table. @param {RoutesValue} value @param {WordRoute[]} routes */
  records(value, routes) {
    const names = ["route", "effect (nats)", "KL (nats)", "usual (nats)", "where", "carries"];
    const rows = routes.map((route) => [
      this.opener(value, route),
      ...[route.effect, route.kl, route.usual].map(short),
      route.layers ? layersOf(route.layers) : "–",
      route.carried ? listed(route.carried.words) || "not in words" : "–",
    ]);
    return recordsTable(names, rows);
  }

  /** @param {string} key @param {string} [back] key of the item that has the focus then */
  choose(key, back) {
    if (key !== this.chosen) this.cut = false;
    this.chosen = key;
    const word = this.value?.words[Number(key || Number.NaN)];
    if (word) this.told(word);
    this.draw();
    if (back) this.reach(back, true);
  }

  /** Show what is chosen, anew only where it changed: a field may hold what a visitor types. @param {RoutesValue} value */
  unfold(value) {
    const { route, chosen, panel } = this,
      word = value.words[Number(chosen || Number.NaN)],
      state = JSON.stringify([route ?? word, chosen, value.swaps.length, value.settings.text, this.asking !== null]);
    for (const item of this.items) item.setAttribute("aria-expanded", String(item.dataset.item === chosen));
    this.field.classList.toggle("wb-arcs-chosen", route !== null);
    panel.hidden = !(route || word);
    if (panel.hidden || state === panel.dataset.state) return;
    panel.dataset.state = state;
    panel.replaceChildren(...(route ? ofRoute(this, value, route) : ofWord(this, value, word)));
  }

  /** Let Tab reach one item, the first for an unknown key. @param {string} key @param {boolean} focus */
  reach(key, focus) {
    const found = this.items.find((item) => item.dataset.item === key) ?? this.items[0];
    for (const item of this.items) item.tabIndex = item === found ? 0 : -1;
    if (focus) found?.focus();
  }

  /** Arrows lead to the next word or arc, up to an arc of the word and down to the word of an arc. @param {KeyboardEvent} event */
  key(event) {
    const here = document.activeElement?.getAttribute("data-item") ?? "",
      keys = this.items.map((item) => item.dataset.item ?? ""),
      row = keys.filter((key) => key.includes("-") === here.includes("-"));
    /** @type {Record<string, string | undefined>} */
    const ways = {
      ArrowLeft: row[row.indexOf(here) - 1],
      ArrowRight: row[row.indexOf(here) + 1],
      ArrowUp: keys.findLast((key) => key.includes("-") && key.split("-").includes(here)),
      ArrowDown: here.split("-")[1],
    };
    const opens = event.key === "Enter" || event.key === " ";
    if (!here || !(opens || event.key in ways)) return;
    event.preventDefault();
    if (opens) this.choose(here);
    else this.reach(ways[event.key] ?? here, true);
  }
}

/** How few routes are enough, in words. @param {RoutesValue} value */
function enough({ enough: found, words, answer }) {
  if (!found) return "";
  const ends = found.routes.map((pair) => pair.map((i) => wordText(words[i].text)).join(" → ")),
    chance = `${wordText(answer)} at ${percent(found.probability)}`,
    least = found.null.length ? `; random sets of as many: at least ${short(Math.min(...found.null))}` : "";
  return ends.length
    ? `${ends.length} of ${found.n_edges} edges (${ends.join(", ")}) keep ${chance}. KL ${short(found.kl)} nats; without any: ${short(found.kl_none)}${least}.`
    : `No route is needed: without any, ${chance}, KL ${short(found.kl_none)} nats.`;
}
