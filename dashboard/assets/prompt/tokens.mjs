// The tokens of a prompt in a row, the features on each, and the next-token distribution after the chosen one.

import { setProps } from "../dash.mjs";
import { all, byId, element, menu, visible } from "../dom.mjs";
import { fieldsOf, sliderOf } from "../form.mjs";
import { ask, failed, percent, settled, spaced } from "./draw.mjs";

const CHIPS = 5; // features of a token in the list of every token
const FULL_LOSS = 10; // nats at which a token is coloured fully: a probability of 1 in 22,000
/** @param {number} value @param {number} most */
const alpha = (value, most) => (value <= 0 || most <= 0 ? 0 : 0.12 + 0.6 * Math.min(value / most, 1));

/**
 * The row of tokens: an option of a list each, so that arrow keys move and a screen reader says the value.
 * @param {PromptState} state
 */
export function tokens(state) {
  const holder = byId("prompt-tokens");
  const list = element("div", {
    class: "wb-tokens wb-token-row",
    role: "listbox",
    "aria-label": "Tokens",
    dir: "auto",
  });
  const spans = state.reading.tokens.map((token, i) => {
    const span = element("span", { class: "wb-mark wb-tok", role: "option", tabindex: -1 }, visible(token));
    span.addEventListener("click", () => state.select({ token: i, key: null }));
    return span;
  });
  list.append(...spans);
  list.addEventListener("keydown", (event) => {
    const at = state.selection.token,
      last = spans.length - 1;
    const steps = { ArrowRight: at + 1, ArrowLeft: at - 1, ArrowDown: at + 10, ArrowUp: at - 10, Home: 0, End: last };
    const to = /** @type {Record<string, number>} */ (steps)[event.key];
    if (to === undefined) return;
    event.preventDefault();
    event.stopPropagation();
    state.select({ token: Math.min(last, Math.max(0, to)), key: null });
    spans[state.selection.token].focus();
  });
  const known = state.reading.losses.filter((loss) => loss !== null);
  const mean = known.length ? (known.reduce((a, b) => a + b, 0) / known.length).toFixed(2) : "none";
  const uniform = Math.log(state.reading.vocabulary).toFixed(2);
  const facts = byId("prompt-facts");
  const about =
    `${spans.length} tokens · mean loss ${mean} nats (uniform guess ${uniform}) · ` +
    `${state.reading.seconds.toPrecision(2)} s`;
  facts.textContent = about;
  list.addEventListener("mouseover", (event) => {
    const over = /** @type {HTMLElement} */ (event.target).dataset.tip;
    facts.textContent = over ? `token ${over}` : about;
  });
  list.addEventListener("mouseleave", () => {
    facts.textContent = about;
  });
  holder.replaceChildren(list);
  const choices = [
    ["loss", "colour: loss of each token"],
    ["attention", "colour: attention of the chosen token"],
  ];
  if (state.run.features) {
    choices.splice(1, 0, ["strongest", "colour: strongest feature"], ["feature", "colour: chosen feature"]);
  }
  /** @param {string} kind */
  const colour = (kind) => {
    state.colour = kind;
    paint();
  };
  state.colour = state.selection.feature !== null && state.run.features ? "feature" : "loss";
  byId("prompt-colour-choice").replaceChildren(menu("Colour of the tokens", choices, state.colour, colour));

  /** @returns {[shown: number[], most: number, unit: string]} */
  function values() {
    const { reading, selection } = state,
      n = reading.tokens.length;
    if (state.colour === "loss") return [reading.losses.map((loss) => loss || 0), FULL_LOSS, "loss in nats"];
    if (state.colour === "attention") {
      return [state.attention || new Array(n).fill(0), 1, `attention of L${selection.layer}H${selection.head}`];
    }
    const found = state.colour === "feature" ? state.activations : reading.features.map((at) => (at[0] || [0, 0])[1]);
    const shown = found || new Array(n).fill(0);
    const unit = state.colour === "feature" ? `activation of feature ${selection.feature}` : "strongest activation";
    return [shown, Math.max(...shown), unit];
  }

  function paint() {
    const [shown, most, unit] = values();
    spans.forEach((span, i) => {
      span.style.setProperty("--a", alpha(shown[i], most).toFixed(3));
      const text = `${i} · ${unit} ${Number(shown[i]).toPrecision(3)}`;
      span.setAttribute("data-tip", text);
      span.setAttribute("aria-label", `${visible(state.reading.tokens[i])}, position ${text}`);
    });
  }

  function choose() {
    spans.forEach((span, i) => {
      const here = i === state.selection.token;
      span.setAttribute("aria-selected", String(here));
      span.tabIndex = here ? 0 : -1;
      span.classList.toggle("wb-peak", here);
      if (here) list.scrollTop = span.offsetTop - list.clientHeight / 2;
    });
  }

  return {
    paint,
    colour,
    select: () => {
      choose();
      paint();
    },
  };
}

/**
 * The features on the chosen token, and folded away those on every token.
 * @param {PromptState} state
 */
export function features(state) {
  const holder = byId("prompt-token-features");
  const { tokens: texts, features: found, labels } = state.reading;
  if (!state.run.features) {
    holder.replaceChildren(element("p", { class: "wb-none" }, "No dictionary was chosen."));
    return { select: () => {} };
  }
  const strongest = Math.max(1e-9, ...found.flat().map(([, activation]) => activation));
  const list = element("ol", { class: "wb-fired" });
  const every = element("ol", { class: "wb-token-features wb-lazy" });
  /** @type {HTMLElement[]} */
  const rows = [];
  const fold = element("details", { class: "wb-folded" }, element("summary", {}, "On every token"), every);
  fold.addEventListener("toggle", () => {
    if (!rows.length) rows.push(...texts.map(row));
    every.replaceChildren(...rows);
    mark();
  });
  const null_ = element("p", { class: "wb-note", id: "prompt-feature-null" }, chance(state.reading));
  const others = element("details", { class: "wb-folded", hidden: true });
  holder.replaceChildren(list, others, null_, fold);

  /** @param {string} token @param {number} i */
  function row(token, i) {
    const text = spaced(token, 20),
      onclick = () => state.select({ token: i, key: null });
    const name = element(
      "button",
      { class: "wb-token wb-link", type: "button", "aria-label": `${text}, token ${i}`, onclick },
      text,
    );
    const chips = found[i].slice(0, CHIPS).map((fired) => {
      const { link, label, value } = parts(state, labels, fired);
      const share = (0.1 + 0.5 * Math.min(1, fired[1] / strongest)).toFixed(2);
      return element(
        "span",
        { class: "wb-chip", "data-feature": fired[0], style: { "--a": share } },
        ...[link, label, value],
      );
    });
    const none = element("span", { class: "wb-quiet" }, "none");
    return element("li", { "data-token": i }, name, element("div", {}, ...(chips.length ? chips : [none])));
  }

  /** @param {[latent: number, activation: number, below: number | null]} fired @param {number} most */
  function line(fired, most) {
    const { link, label, value, below } = parts(state, labels, fired);
    const bar = element("span", { style: { width: `${(100 * fired[1]) / most}%` } });
    const track = element("span", { class: "wb-track", "aria-hidden": "true" }, bar);
    return element("li", { "data-feature": fired[0] }, link, label, track, value, below);
  }

  function mark() {
    rows.forEach((each, i) => each.classList.toggle("wb-here", i === state.selection.token));
    for (const each of all("[data-feature]", holder)) {
      each.classList.toggle("wb-chip-on", Number(each.dataset.feature) === state.selection.feature);
    }
    const here = rows[state.selection.token];
    if (here) every.scrollTop = here.offsetTop - every.offsetTop - every.clientHeight / 2;
  }

  return {
    select: () => {
      const here = found[state.selection.token];
      const head = ["", "", "activation", "", "percentile"].map((text) => element("span", {}, text));
      const none = element("li", { class: "wb-none" }, "No feature is active on this token.");
      const spelt = here.filter(([feature]) => isWordItself(labels[feature] || "", texts[state.selection.token]));
      const more = spelt.length > 1 ? spelt.slice(1) : []; // one says it
      const first = here.filter((fired) => !more.includes(fired)).map((fired) => line(fired, here[0][1]));
      list.replaceChildren(...(here.length ? [element("li", { class: "wb-quiet" }, ...head), ...first] : [none]));
      others.hidden = !more.length;
      others.replaceChildren(
        element("summary", {}, `${more.length} more of the same word`),
        element("ol", { class: "wb-fired" }, ...more.map((fired) => line(fired, here[0][1]))),
      );
      mark();
    },
  };
}

/**
 * Whether a label says no more than that the feature fires on a token, in this or another spelling.
 * @param {string} label @param {string} token
 */
function isWordItself(label, token) {
  const said = label.replace(/^(the word|often)/i, "").replace(/in any form|\(\d+ %\)|["'\s]/g, "");
  return said.toLowerCase() === token.trim().toLowerCase();
}

/** The null: the activations of the dictionary at random vectors. @param {Reading} given */
function chance({ active, random_active: count, random_strongest: most }) {
  if (!count.length) return "";
  /** @param {number[]} values */
  const median = (values) => [...values].sort((a, b) => a - b)[Math.floor(values.length / 2)];
  return `${median(active)} features active (noise: ${median(count)}, the strongest at ${median(most).toPrecision(2)})`;
}

/**
 * The pieces of a feature on a token: its link, the button that colours the tokens by it, and its numbers.
 * @param {PromptState} state @param {Record<number, string>} labels
 * @param {[latent: number, activation: number, below: number | null]} given
 */
function parts(state, labels, [feature, activation, below]) {
  const href = `/feature/${encodeURIComponent(state.run.features ?? "")}/${feature}`;
  const link = element("a", { href, class: "wb-feature-number", title: `open feature ${feature}` }, String(feature));
  link.addEventListener("click", (event) => {
    if (event.ctrlKey || event.metaKey || event.shiftKey) return;
    event.preventDefault();
    setProps("nav", { href });
  });
  const full = visible(labels[feature] || "", 200),
    text = full || "no label";
  const label = element(
    "button",
    {
      type: "button",
      class: "wb-chip-label",
      title: full,
      "aria-label": `colour the tokens by feature ${feature}: ${text}`,
      onclick: () => state.select({ feature: state.selection.feature === feature ? null : feature }),
    },
    text,
  );
  return {
    link,
    label,
    value: element("span", { class: "wb-value" }, activation.toPrecision(2)),
    below: element("span", { class: "wb-value" }, below === null ? "" : `${Math.round(100 * below)} %`),
  };
}

/** The likeliest tokens after the chosen one, at a temperature. @param {PromptState} state */
export function next(state) {
  const holder = byId("prompt-next");
  const { temperature } = fieldsOf(byId("prompt-views")).next_tokens;
  const slider = sliderOf(temperature, { "aria-label": "Temperature", class: "wb-range" });
  const label = element("span", { class: "wb-value" }, Number(slider.value).toFixed(1));
  const bars = element("ol", { class: "wb-bars", "aria-label": "Likeliest next tokens" }),
    words = element("p", { class: "wb-note" });
  slider.addEventListener("input", () => {
    label.textContent = Number(slider.value).toFixed(1);
    update();
  });
  holder.replaceChildren(
    words,
    bars,
    element("label", { class: "wb-slide", title: temperature.help }, temperature.title, slider, label),
  );
  /** @type {AbortController | null} */
  let last = null;
  const update = settled(120, async () => {
    const body = { ...state.asking(), after: state.selection.token, temperature: Number(slider.value) };
    if (last) last.abort();
    last = new AbortController();
    try {
      const found = await ask("next_tokens", body, last.signal);
      if (!found) return;
      words.textContent =
        `after ${spaced(found.token, 24)}: entropy ${found.entropy.toFixed(2)} nats ` +
        `(uniform guess ${found.uniform.toFixed(2)})`;
      bars.replaceChildren(
        ...found.guesses.map(([token, p]) =>
          element(
            "li",
            {},
            element("span", { class: "wb-token", dir: "auto", title: JSON.stringify(token) }, spaced(token, 22)),
            element(
              "span",
              { class: "wb-track", "aria-hidden": "true" },
              element("span", { style: { width: `${100 * p}%` } }),
            ),
            element("span", { class: "wb-value" }, percent(p)),
          ),
        ),
      );
    } catch (error) {
      bars.replaceChildren(failed(error));
    }
  });
  let at = -1; // the token whose successors are shown
  return {
    select: () => {
      if (at !== state.selection.token) {
        at = state.selection.token;
        update();
      }
    },
  };
}
