// The prompt page: reads a prompt, holds the one selection that all views share, and passes it to the page's callbacks.

import { none, setProps } from "../dash.mjs";
import { byId } from "../dom.mjs";
import { json, messageOf, stageOf } from "../http.mjs";
import { viewOf } from "../routes/routes.mjs";
import { heads, pattern } from "./attention.mjs";
import { ask, failed, settled, spaced } from "./draw.mjs";
import { lens } from "./lens.mjs";
import { steer } from "./steer.mjs";
import { features, next, tokens } from "./tokens.mjs";

/** @param {string} id @param {unknown} value */
const set = (id, value) => setProps(id, { data: value });
/** @type {Record<string, (state: PromptState) => PromptView>} */
const VIEWS = { routes, tokens, features, next, lens, heads, pattern, steer };
/** @type {PromptState | null} */
let state = null;
/** @type {AbortController | null} */
let reading = null;

/** The routes are asked for after the reading; a word that is chosen there is the token of all views. @param {PromptState} state */
function routes(state) {
  const root = byId("prompt-routes"),
    view = viewOf(root);
  view.told = ({ stop }) => state.select({ token: stop - 1 });
  root.closest("section")?.classList.remove("wb-hidden");
  const answer = () => view.ask({ ...state.asking(), answer: state.asked.answer });
  answer();
  return { select() {}, answer };
}

/**
 * Called when there is a prompt to run: at once for a text in the address, and after *Run*.
 * @param {Prompt | null} prompt @param {string} visitor @param {PromptSelection} selection @param {Asked} asked
 */
export function run(prompt, visitor, selection, asked) {
  if (prompt) read(prompt, visitor, state && state.visitor === visitor ? state.selection : selection, asked);
  return none();
}

/** @param {Prompt} prompt @param {string} visitor @param {PromptSelection} selection @param {Asked} asked */
async function read(prompt, visitor, selection, asked) {
  const holder = byId("prompt-views"),
    errors = byId("prompt-error");
  if (reading) reading.abort();
  viewOf(byId("prompt-routes")).end();
  const mine = new AbortController();
  reading = mine;
  errors.replaceChildren();
  const done = busy(visitor, mine);
  const again =
    state &&
    state.visitor === visitor &&
    state.run.text === prompt.text &&
    Boolean(state.run.chat) === Boolean(prompt.chat);
  try {
    const found = await ask("read_prompt", { ...prompt, features: prompt.features ?? "", visitor }, mine.signal);
    if (!found || mine !== reading) return;
    if (state) state.observer.disconnect();
    state = begin(
      prompt,
      visitor,
      found,
      again ? selection : { ...selection, ...fresh(selection, found, state) },
      asked,
    );
    holder.classList.remove("wb-hidden");
    draw(state);
    told = {};
    tell(state.selection);
    set("prompt-read", { ...prompt, visitor });
  } catch (error) {
    holder.classList.add("wb-hidden");
    set("prompt-read", null);
    errors.replaceChildren(failed(error));
  } finally {
    done();
  }
}

/**
 * A new text keeps head and feature, but not the token: the last one is chosen.
 * @param {PromptSelection} selection @param {Reading} found @param {PromptState | null} before
 */
function fresh(selection, found, before) {
  const n = found.tokens.length,
    inside = selection.token !== null && selection.token < n && !before;
  return { token: inside ? selection.token : n - 1, key: inside ? selection.key : null };
}

/**
 * The same text may have fewer tokens than before, as without the chat template: the selection stays inside.
 * @param {Prompt} prompt @param {string} visitor @param {Reading} found @param {PromptSelection} selection
 * @param {Asked} asked
 */
function begin(prompt, visitor, found, selection, asked) {
  const n = found.tokens.length,
    token = Math.min(selection.token ?? n - 1, n - 1),
    key = selection.key ?? null;
  /** @type {PromptState} */
  const made = {
    run: prompt,
    visitor,
    reading: found,
    asked: { ...asked },
    colour: "loss",
    attention: null,
    activations: null,
    views: {},
    selection: {
      ...selection,
      token,
      key: key === null || key > token ? null : key,
      layer: Math.min(selection.layer ?? Math.floor(found.n_layers / 2), found.n_layers - 1),
      head: Math.min(selection.head || 0, found.n_heads - 1),
    },
    asking: () => ({ text: prompt.text, model: prompt.model, chat: Boolean(prompt.chat), visitor }),
    select: (changes) => select(made, changes),
    observer: new MutationObserver(() => Object.values(made.views).forEach((view) => view.paint?.())),
  };
  made.observer.observe(document.documentElement, { attributes: true, attributeFilter: ["data-scheme"] });
  return made;
}

/** @param {PromptState} mine */
function draw(mine) {
  mine.views = Object.fromEntries(Object.entries(VIEWS).map(([name, make]) => [name, make(mine)]));
  show(mine);
  if (mine.selection.feature !== null) colourByFeature(mine);
  settle(mine.selection);
}

/** @param {PromptState} mine */
function show(mine) {
  Object.values(mine.views).forEach((view) => view.select());
  const { token, feature, key } = mine.selection;
  const title = byId("prompt-selected");
  title.textContent =
    `After “${spaced(mine.reading.tokens[token], 24).replace(/^␣(?=.)/, "")}”` +
    (feature === null ? "" : ` · feature ${feature}`);
  title.title = `token ${token}`;
  byId("prompt-why").hidden = key === null;
}

/** @param {PromptState} mine @param {Partial<PromptSelection>} changes */
function select(mine, changes) {
  if (mine !== state) return;
  const before = mine.selection;
  mine.selection = { ...before, ...changes };
  if (before.feature !== mine.selection.feature) colourByFeature(mine);
  show(mine);
  settle(mine.selection);
}

/** @param {PromptSelection} given */
const cellOf = ({ layer, head, token, key }) => (key === null ? null : { layer, head, query: token, key });

// Callbacks get the selection once it settles: an arrow key held down asks for one attribution, not for twenty.
/** @type {Record<string, string>} */
let told = {};
const settle = settled(250, tell);

/** @param {PromptSelection} selection */
function tell(selection) {
  const now = { "prompt-selection": selection, "prompt-token": selection.token, "prompt-cell": cellOf(selection) };
  for (const [id, value] of Object.entries(now)) {
    const text = JSON.stringify([state?.visitor, value]);
    if (document.getElementById("prompt-views") && told[id] !== text) set(id, value);
    told[id] = text;
  }
}

/** @param {PromptState} mine */
async function colourByFeature(mine) {
  const feature = mine.selection.feature;
  mine.activations = null;
  const menu = /** @type {HTMLSelectElement | null} */ (document.querySelector("#prompt-colour-choice select"));
  const to = feature === null ? "loss" : "feature";
  if (menu) menu.value = to;
  mine.views.tokens.colour?.(to);
  if (feature === null || !mine.run.features) return;
  try {
    const found = await ask("activations", { ...mine.asking(), features: mine.run.features, feature });
    if (!found || mine.selection.feature !== feature) return;
    mine.activations = found;
    mine.views.tokens.paint?.();
  } catch (error) {
    byId("prompt-selected").textContent = messageOf(error);
  }
}

/**
 * While a prompt is read: how far it is, and a button that drops it.
 * @param {string} visitor @param {AbortController} mine
 */
function busy(visitor, mine) {
  const strip = byId("prompt-busy"),
    words = byId("prompt-stage");
  const cancel = byId("prompt-cancel");
  strip.className = "wb-busy wb-busy-on";
  cancel.onclick = () => {
    mine.abort();
    json("/api/visitor/cancel", { visitor });
  };
  const timer = setInterval(async () => {
    const stage = await stageOf(visitor);
    if (stage && mine === reading) words.textContent = stage;
  }, 700);
  return () => {
    clearInterval(timer);
    if (mine === reading) strip.className = "wb-busy";
  };
}

/** @param {string} text @param {string} contrast @param {Asked} asked */
export function answer(text, contrast, asked) {
  const now = { answer: text || "", contrast: contrast || "" };
  if (asked && now.answer === asked.answer && now.contrast === asked.contrast) return none();
  if (state) {
    state.asked = now;
    for (const view of Object.values(state.views)) view.answer?.();
  }
  return now;
}
