// Continuations of the prompt, token by token: unchanged, with a feature steered or two words exchanged, and the control.

import { byId, element, visible } from "../dom.mjs";
import { fieldsOf, helpOf, inputOf, labelled, menuOf } from "../form.mjs";
import { messages, request } from "../http.mjs";
import { aborted, ask, failed, percent } from "./draw.mjs";

const ARMS = [
  ["unchanged", "the unchanged model"],
  ["changed", "the feature's direction added on every token, or the two words exchanged"],
  ["random direction", "a change of the same size in a random direction: the control"],
];

/** @type {AbortController | null} */
let wanted = null; // the continuation on its way; a new prompt drops it

/** @param {PromptState} state */
export function steer(state) {
  if (wanted) wanted.abort();
  const holder = byId("prompt-steer");
  const { continue_prompt: asked, judge_steering: judging, exchange } = fieldsOf(byId("prompt-views"));
  const inputs = Object.fromEntries(
    Object.entries(asked).map(([name, field]) => [name, inputOf(field, { id: `prompt-steer-${name}` })]),
  );
  const { feature, strength, n_new: count, temperature, seed } = inputs;
  feature.value = "";
  const nulls = menuOf(judging.nulls, { id: "prompt-steer-nulls" });
  const word = inputOf(exchange.word, { placeholder: "a word", id: "prompt-exchange-word" });
  const other = inputOf(exchange.other, { placeholder: "another", id: "prompt-exchange-other" });
  const layer = inputOf(exchange.layer, { max: state.reading.n_layers - 1 });
  layer.value = String(Math.floor(0.6 * state.reading.n_layers));
  const swap = element("button", { type: "button", class: "wb-button", id: "prompt-exchange-go" }, "Exchange");
  const go = element("button", { type: "button", class: "wb-button", id: "prompt-steer-go" }, "Continue");
  const judge = element("button", { type: "button", class: "wb-button", id: "prompt-steer-verdict" }, "Verdict");
  const judged = element("p", { class: "wb-note", id: "prompt-steer-judged", "aria-live": "polite" });
  const stop = element("button", { type: "button", class: "wb-link", hidden: true, id: "prompt-steer-stop" }, "Stop");
  const said = element("p", { class: "wb-note", "aria-live": "polite" });
  const lines = ARMS.map(([name, hint]) => {
    const text = element("span", { class: "wb-tokens", dir: "auto" });
    return { name, text, item: element("li", { title: hint }, element("span", { class: "wb-quiet" }, name), text) };
  });
  const list = element("ol", { class: "wb-arms", hidden: true }, ...lines.map((line) => line.item));
  holder.replaceChildren(
    element(
      "div",
      { class: "wb-controls wb-form" },
      ...Object.entries(inputs).map(([name, input]) => labelled(asked[name], input)),
      go,
      judge,
      nulls,
      helpOf({ ...asked, ...judging }),
      stop,
    ),
    state.reading.lenses.some(([kind]) => kind === "jacobian")
      ? element(
          "div",
          { class: "wb-controls wb-form" },
          labelled(exchange.word, word),
          labelled(exchange.other, other),
          labelled(exchange.layer, layer),
          swap,
          helpOf(exchange),
        )
      : "",
    said,
    list,
    judged,
  );
  stop.addEventListener("click", () => wanted?.abort());
  go.addEventListener("click", () => {
    if (chosen()) run(steering());
  });
  swap.addEventListener("click", () => {
    if (word.value.trim() && other.value.trim())
      run({ exchange: { word: word.value, other: other.value, layer: Number(layer.value) } });
    else said.textContent = "Type two words, such as Rome and London.";
  });
  judge.addEventListener("click", verdict);

  function chosen() {
    if (feature.value === "")
      said.textContent = "Choose a feature first: click the label of one above, or type its number.";
    return feature.value !== "";
  }

  const steering = () => ({
    features: state.run.features ?? "",
    feature: Number(feature.value),
    strength: Number(strength.value || asked.strength.default),
  });

  async function verdict() {
    if (!chosen()) return;
    judge.disabled = true;
    judged.textContent = "steering along the directions of both nulls …";
    const { text, chat, visitor } = state.asking();
    try {
      const found = await ask("judge_steering", { text, chat, visitor, ...steering(), nulls: nulls.value });
      judged.textContent = found?.headline ?? "";
    } catch (error) {
      judged.replaceChildren(failed(error));
    }
    judge.disabled = false;
  }

  /** @param {Record<string, unknown>} change */
  async function run(change) {
    wanted = new AbortController();
    busy(true);
    lines.forEach((line) => line.text.replaceChildren());
    list.hidden = false;
    const body = {
      ...state.asking(),
      ...change,
      n_new: Number(count.value),
      temperature: Number(temperature.value),
      seed: Number(seed.value),
    };
    /** @type {Written[][]} */
    const written = [[], [], []];
    try {
      const answer = await request("/api/act/continue_prompt", body, { signal: wanted.signal });
      for await (const given of messages(answer)) {
        const step = /** @type {SteerStep} */ (given);
        if (step.error) throw new Error(step.error);
        if (step.unchanged.length) {
          finish(written, step.unchanged);
          break;
        }
        step.tokens.forEach(([token, p], arm) => add(written, arm, token, p));
        said.textContent = `token ${step.number + 1} of ${count.value}`;
      }
    } catch (error) {
      said.replaceChildren(aborted(error) ? "Stopped." : failed(error));
    }
    busy(false);
  }

  /** @param {boolean} on */
  function busy(on) {
    go.disabled = swap.disabled = on;
    stop.hidden = !on;
  }

  /** @param {Written[][]} written @param {number} arm @param {string} token @param {number} p */
  function add(written, arm, token, p) {
    const span = element("span", { class: "wb-mark", "data-tip": `probability ${percent(p)}` }, visible(token));
    written[arm].push({ token, p, span });
    lines[arm].text.append(span);
    const place = written[arm].length - 1;
    if (arm && written[0][place] && written[0][place].token !== token) span.classList.add("wb-other");
  }

  /**
   * Under the unchanged model: how surprising each continuation is. Colour is the loss of a token there.
   * @param {Written[][]} written @param {number[][]} unchanged
   */
  function finish(written, unchanged) {
    const means = unchanged.map((row, arm) => {
      row.forEach((p, i) => {
        const { span, p: own } = written[arm][i],
          loss = -Math.log(Math.max(p, 1e-12));
        span.style.setProperty("--a", loss > 0.7 ? (0.12 + 0.6 * Math.min(1, loss / 10)).toFixed(3) : "0");
        span.setAttribute("data-tip", `probability ${percent(own)}, unchanged model ${percent(p)}`);
      });
      return row.reduce((sum, p) => sum - Math.log(Math.max(p, 1e-12)), 0) / row.length;
    });
    const moved = [1, 2].map((arm) => written[arm].filter((each, i) => each.token !== written[0][i].token).length);
    said.textContent =
      `Tokens that differ from the unchanged continuation: ${moved[0]} changed, ${moved[1]} in a random ` +
      `direction of the same length. Mean loss of each under the unchanged model: ` +
      `${means[1].toFixed(2)} nats changed, ${means[2].toFixed(2)} random, ${means[0].toFixed(2)} its own. ` +
      "Colour: surprise of the unchanged model. " +
      "One control only; Verdict compares with many.";
  }

  /** @type {number | null} */
  let last = null; // a number that was typed stays until another feature is chosen
  function select() {
    const chosen = state.selection.feature;
    if (chosen !== null && chosen !== last) feature.value = String(chosen);
    last = chosen;
  }
  return { select };
}
