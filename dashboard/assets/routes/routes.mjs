// Routes of a prompt on a page: a sentence, the picture or its table, and below it what is chosen (chosen.mjs). A value is
// stored (`open`), or comes step by step while the model is asked (`ask`).

import { download } from "../atlas/saving.mjs";
import { all, button, element, recordsTable } from "../dom.mjs";
import { json, messageOf, messages, request } from "../http.mjs";
import { asFile, chance, draw, layersOf, listed, nats, wordText } from "./arcs.mjs";
import { ofRoute, ofWord } from "./chosen.mjs";

const FIRST = 6; // arcs that are drawn at first

/** @type {WeakMap<HTMLElement, RoutesView>} */
const views = new WeakMap();

/** The view of an element, made when it is first asked for. @param {HTMLElement} root */
export function viewOf(root) {
  const view = views.get(root) ?? new RoutesView(root);
  views.set(root, view);
  return view;
}

/** Text with `*words*` emphasised. @param {string} text */
const emphasised = (text) =>
  text.split(/\*([^*]+)\*/).map((part, i) => (i % 2 ? element("em", {}, wordText(part, 60)) : part));

/** An edge that does as much on other prompts, a sink of attention. @param {WordRoute} route */
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
  /** True where the value is whole, not one on its way or stopped */
  whole = false;
  visitor = "";
  /** @type {(word: RouteWord) => void} called with a word that is chosen */
  told = () => {};

  /** @param {HTMLElement} root */
  constructor(root) {
    this.root = root;
    this.sentence = element("p", { class: "wb-routes-sentence", dir: "auto" }, ...root.childNodes);
    this.field = element("div", { class: "wb-routes-field" });
    this.list = element("ol", { class: "wb-routes-list" });
    this.tools = element("span", { class: "wb-controls" });
    this.said = element("span", { class: "wb-quiet", role: "status" });
    this.stop = button("Stop", { class: "wb-link", onclick: () => this.end(), hidden: true });
    this.panel = element("div", { class: "wb-route-open", hidden: true });
    this.enough = element("p", { class: "wb-note wb-routes-enough" });
    const foot = element("div", { class: "wb-controls wb-routes-tools" }, this.tools, this.said, this.stop);
    root.replaceChildren(this.sentence, this.field, this.list, foot, this.panel, this.enough);
    new ResizeObserver(() => this.field.clientWidth !== this.width && this.draw()).observe(this.field);
    this.field.addEventListener("keydown", (event) => this.key(event));
    root.addEventListener("keydown", ({ key }) => key === "Escape" && this.chosen && this.choose("", this.chosen));
  }

  /** Draw a stored value. @param {string} address */
  async open(address) {
    try {
      this.show(/** @type {RoutesValue} */ (await json(address)));
      this.whole = true;
    } catch (error) {
      this.sentence.textContent = messageOf(error);
    }
  }

  /**
   * Ask the model, unless the answer is drawn; what was measured stays where it is stopped.
   * @param {{ text: string, model: string, chat: boolean, visitor: string }} prompt @param {string} answer
   */
  async ask(prompt, answer) {
    this.visitor = prompt.visitor;
    const known = this.whole && this.value?.settings,
      { text, model, chat } = prompt;
    if (known && known.text === text && known.model === model && known.chat === chat && known.answer === answer) return;
    this.end();
    const mine = new AbortController();
    this.asking = mine;
    this.whole = false;
    this.chosen = "";
    this.value = null;
    for (const drawn of [this.field, this.list, this.tools, this.enough]) drawn.replaceChildren();
    this.panel.hidden = true;
    this.stop.hidden = false;
    this.sentence.textContent = "Cutting words …";
    try {
      const answered = await request("/api/act/why", { ...prompt, answer, nulls: "quick" }, { signal: mine.signal });
      for await (const step of messages(answered)) {
        const value = /** @type {RoutesValue} */ (step);
        if (value.error) throw new Error(value.error);
        if (!this.root.isConnected) mine.abort();
        if (mine !== this.asking) return;
        this.said.textContent = value.routes.length ? "measuring layers and words …" : "cutting edges …";
        this.show(value);
      }
      this.whole = true;
      this.end("");
    } catch (error) {
      if (mine === this.asking) this.end(messageOf(error));
    }
  }

  /** Give up what was asked; what was measured stays. @param {string} [said] */
  end(said = "Stopped: what was measured stays.") {
    if (!this.asking) return;
    this.asking.abort();
    this.asking = null;
    this.stop.hidden = true;
    this.said.textContent = said;
    if (!this.value) this.sentence.textContent = "";
    else this.draw();
  }

  /** @param {RoutesValue} value */
  show(value) {
    if (this.value) value.swaps = [...value.swaps, ...this.value.swaps.filter(({ asked }) => asked)];
    this.value = value;
    this.sentence.replaceChildren(...emphasised(value.sentence ?? value.headline ?? ""));
    this.draw();
  }

  /** Routes that are drawn, strongest first. */
  get routes() {
    const routes = this.value?.routes ?? [];
    return this.all ? routes : routes.filter((route) => !isUsual(route)).slice(0, FIRST);
  }

  /** The route that is chosen. */
  get route() {
    return this.value?.routes.find(({ source, destination }) => this.chosen === `${source}-${destination}`) ?? null;
  }

  /** Words and arcs that can be chosen. */
  get items() {
    return all("[data-item]", this.field);
  }

  draw() {
    const { value, routes, route } = this;
    this.width = this.field.clientWidth;
    if (!value || !this.width) return;
    const active = document.activeElement,
      held = this.field.contains(active) ? active?.getAttribute("data-item") : null;
    const { picture, upright } = draw(value, routes, this.width, this.cut ? route : null);
    this.field.replaceChildren(this.table ? this.records(value, routes) : picture);
    this.field.classList.toggle("wb-scroll", this.table);
    const listed = upright && !this.table ? routes : [];
    this.list.replaceChildren(...listed.map((one) => element("li", {}, this.opener(value, one), about(one))));
    for (const item of this.items) {
      item.tabIndex = -1;
      item.addEventListener("click", () => this.choose(item.dataset.item ?? ""));
    }
    const first = this.items.find((item) => item.dataset.item === (held ?? this.chosen)) ?? this.items[0];
    if (first) first.tabIndex = 0;
    if (held) first?.focus();
    this.tool(value, picture);
    this.say(value);
    this.unfold();
  }

  /** A button that chooses a route. @param {RoutesValue} value @param {WordRoute} route */
  opener({ words }, { source, destination }) {
    const ends = `${wordText(words[source].text)} → ${wordText(words[destination].text)}`;
    return button(ends, { class: "wb-link", dir: "auto", onclick: () => this.choose(`${source}-${destination}`) });
  }

  /** The routes as a table. @param {RoutesValue} value @param {WordRoute[]} routes */
  records(value, routes) {
    const names = ["route", "effect (nats)", "KL (nats)", "layers", "carries", "usual (nats)"];
    const rows = routes.map((route) => [
      this.opener(value, route),
      nats(route.effect),
      nats(route.kl),
      route.layers ? layersOf(route.layers) : "–",
      route.carried ? listed(route.carried.words) || "not in words" : "–",
      route.usual === null ? "–" : nats(route.usual),
    ]);
    return recordsTable(names, rows);
  }

  /** @param {RoutesValue} value @param {SVGElement} picture */
  tool(value, picture) {
    const more = value.routes.length - this.routes.length,
      usual = value.routes.filter(isUsual).length,
      change = (/** @type {"all" | "table"} */ what) => () => {
        this[what] = !this[what];
        this.draw();
      };
    const save = () => download(URL.createObjectURL(asFile(picture)), "routes.svg");
    this.tools.replaceChildren(
      more || this.all
        ? button(this.all ? "Fewer" : `${more} more${usual ? `, ${usual} usual` : ""}`, {
            title: "Weaker routes, and usual ones: edges that do as much on other prompts of this length",
            onclick: change("all"),
          })
        : "",
      button(this.table ? "Picture" : "Table", { onclick: change("table") }),
      this.table ? "" : button("Save as SVG", { onclick: save }),
    );
  }

  /** How few routes are enough. @param {RoutesValue} value */
  say({ enough, words, answer, n_edges: edges }) {
    if (!enough) return this.enough.replaceChildren();
    const { routes, probability, kl, kl_none: none, null: null_ } = enough,
      ends = routes.map((pair) => pair.map((i) => wordText(words[i].text)).join(" → ")).join(", ");
    this.enough.replaceChildren(
      routes.length
        ? `${routes.length} of ${edges} edges alone (${ends}) keep ${wordText(answer)} at ${chance(probability)}: KL ${nats(kl)} nats, `
        : `No route is needed: with every edge cut, ${wordText(answer)} keeps ${chance(probability)}. KL `,
      `${nats(none)} with no route${null_.length ? `, at least ${nats(Math.min(...null_))} with ${null_.length} random sets of as many` : ""}.`,
    );
  }

  /** @param {string} key @param {string} [back] key of the item that has the focus then */
  choose(key, back) {
    if (key !== this.chosen) this.cut = false;
    this.chosen = key;
    const word = this.value?.words[Number(key || Number.NaN)];
    if (word) this.told(word);
    this.draw();
    if (back) this.items.find((item) => item.dataset.item === back)?.focus();
  }

  /** Show what is chosen below the picture, anew only where it changed: a field may hold what a visitor types. */
  unfold() {
    const { value, route } = this,
      word = Number(this.chosen || Number.NaN);
    for (const item of this.items) item.setAttribute("aria-expanded", String(item.dataset.item === this.chosen));
    this.field.classList.toggle("wb-arcs-chosen", Boolean(route));
    this.panel.hidden = !value || !(route || value.words[word]);
    const state = JSON.stringify([this.chosen, route ?? value?.words[word], value?.swaps.length, this.asking !== null]);
    if (!value || this.panel.hidden || state === this.panel.dataset.state) return;
    this.panel.dataset.state = state;
    this.panel.replaceChildren(...(route ? ofRoute(this, value, route) : ofWord(this, value, word)));
  }

  /** Arrows go to the next word or arc, up to the arcs of a word and down again. @param {KeyboardEvent} event */
  key(event) {
    const here = document.activeElement?.getAttribute("data-item");
    if (!here) return;
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key],
      isArc = here.includes("-"),
      keys = this.items.map((item) => item.dataset.item ?? ""),
      alike = keys.filter((key) => key.includes("-") === isArc);
    /** @type {string | undefined} */
    let to;
    if (event.key === "Enter" || event.key === " ") this.choose(here);
    else if (step) to = alike[alike.indexOf(here) + step];
    else if (event.key === "ArrowUp" && !isArc)
      to =
        keys.filter((key) => key.split("-").includes(here) && key !== here).at(-1) ??
        keys.filter((key) => key.includes("-")).at(-1);
    else if (event.key === "ArrowDown" && isArc) to = here.split("-")[1];
    else return;
    event.preventDefault();
    event.stopPropagation();
    const found = this.items.find((item) => item.dataset.item === to);
    if (!found) return;
    for (const item of this.items) item.tabIndex = item === found ? 0 : -1;
    found.focus();
  }
}

/** What a line of the list says of a route. @param {WordRoute} route */
const about = ({ effect, layers, carried }) =>
  [` ${nats(effect)} nats`, layers && layersOf(layers), carried && listed(carried.words)].filter(Boolean).join(" · ");
