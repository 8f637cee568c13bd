// Interventions: sliders that multiply activations of chosen nodes and groups, what that changes in the model beside the
// graph's prediction and random latents, and the text with and without it.

import { button, element, recordsTable, short, signed } from "../dom.mjs";
import { fieldsOf, menuOf, sliderOf } from "../form.mjs";
import { json } from "../http.mjs";
import { failure, tokenText } from "./marks.mjs";
import { KINDS } from "./model.mjs";
import { waiting } from "./waiting.mjs";

export class Intervene {
  /** @param {GraphView} view */
  constructor(view) {
    this.view = view;
    /** @type {Map<string, number>} */
    this.factors = new Map(); // by the id of a node, or "group NAME"
    this.fields = fieldsOf(view.root).change_latents;
    this.mode = String(this.fields.mode.default);
    this.visitor = Math.random().toString(36).slice(2);
    this.ticket = 0;
    this.root = element("section", { class: "wb-panel wb-graph-intervene", "aria-label": "Interventions" });
    this.answer = element("div", { role: "status" });
  }

  /** Give a node or a group a slider, at 0 at first. @param {string} key */
  add(key) {
    if (!this.factors.has(key)) this.factors.set(key, 0);
    this.changed();
    /** @type {HTMLElement | null} */ (this.root.querySelector("li:last-child input"))?.focus();
  }

  /** Other factors: an answer to the former ones goes. */
  changed() {
    this.ticket++;
    this.answer.replaceChildren();
    this.draw();
  }

  /** Latents that a slider changes. @param {string} key @returns {string[]} */
  members(key) {
    const { model, resolved } = this.view;
    if (model.numbers.has(key)) return [key];
    const group = resolved.groups.find(({ name }) => `group ${name}` === key);
    return (group?.members ?? []).filter((i) => model.kind[i] === KINDS.FEATURE).map((i) => model.ids[i]);
  }

  /** The factor of every latent: that of its own slider, else of its group's. */
  resolved() {
    /** @type {Record<string, number>} */
    const found = {},
      { numbers } = this.view.model,
      ordered = [...this.factors].sort(([a], [b]) => Number(numbers.has(a)) - Number(numbers.has(b)));
    for (const [key, factor] of ordered) for (const id of this.members(key)) found[id] = factor;
    return found;
  }

  draw() {
    for (const key of this.factors.keys()) if (!this.members(key).length) this.factors.delete(key); // ungrouped
    const any = this.factors.size > 0,
      { mode: field } = this.fields,
      mode = menuOf(field, { onchange: () => (this.mode = mode.value) });
    mode.value = this.mode;
    this.root.replaceChildren(
      element("h2", {}, "Interventions"),
      any
        ? element("ol", { class: "wb-graph-sliders" }, ...[...this.factors.keys()].map((key) => this.row(key)))
        : element("p", { class: "wb-note" }, `Choose a node or a group and press Change. ${this.fields.factors.help}`),
      element(
        "div",
        { class: "wb-graph-acts" },
        any
          ? button("Run in the model", { class: "wb-act", "data-act": "intervene", onclick: () => this.run() })
          : null,
        any ? mode : null,
      ),
      this.answer,
    );
  }

  /** @param {string} key */
  row(key) {
    const { view } = this,
      members = this.members(key),
      one = view.model.numbers.get(key);
    const name = one === undefined ? `${key.slice("group ".length)} (${members.length})` : view.labelOf(one);
    const output = element("output", { class: "wb-value" });
    const input = sliderOf(this.fields.factors, {
      value: String(this.factors.get(key)),
      "aria-label": `Activation of ${name}, times what it is now`,
    });
    const tell = () => {
      output.textContent = `× ${Number(input.value)}`.replace("-", "−");
    };
    input.addEventListener("input", () => {
      this.factors.set(key, Number(input.value));
      tell();
    });
    input.addEventListener("keydown", (event) => event.stopPropagation());
    tell();
    return element(
      "li",
      {},
      element("span", { class: "wb-graph-line-label", dir: "auto", title: name }, tokenText(name, 60)),
      output,
      button("×", {
        class: "wb-link",
        "aria-label": `Leave ${name} as it is`,
        onclick: () => {
          this.factors.delete(key);
          this.changed();
        },
      }),
      input,
    );
  }

  async run() {
    const { view } = this,
      ticket = ++this.ticket,
      asked = { graph: view.name, factors: this.resolved(), visitor: this.visitor };
    const text = element("div");
    this.answer.replaceChildren(text);
    try {
      const running = json("/api/act/change_latents", { ...asked, mode: this.mode });
      const found = /** @type {Outcome} */ (await waiting(text, this.visitor, "running the prompt", running));
      if (ticket !== this.ticket) return;
      text.replaceChildren();
      this.answer.replaceChildren(...outcome(found), text);
      if (this.mode !== "free") return;
      const writing = json("/api/act/continue_graph", asked);
      const written = /** @type {WrittenTexts} */ (await waiting(text, this.visitor, "writing text", writing));
      if (ticket === this.ticket) text.replaceWith(texts(written));
    } catch (error) {
      if (ticket === this.ticket) text.replaceWith(failure(error));
    }
  }
}

/** What the model writes after the prompt. @param {WrittenTexts} found */
function texts({ clean, changed, random }) {
  const arms = [["without", clean], ["with", changed], ...random.map((text) => ["random latents", text])];
  return element(
    "dl",
    { class: "wb-graph-texts" },
    ...arms.flatMap(([name, text]) => [
      element("dt", {}, name),
      element("dd", { class: "wb-tokens", dir: "auto" }, tokenText(text, 400)),
    ]),
  );
}

/**
 * Measured effect, prediction and null on one line, in words, and the next tokens before and after.
 * @param {Outcome} found
 */
function outcome(found) {
  const { measured, predicted, random_low: low, random_high: high, p, target, tokens } = found;
  const values = [measured, predicted, low, high, 0].filter((v) => v !== null),
    most = Math.max(...values.map(Math.abs)) || 1;
  /** @param {number} v */
  const at = (v) => `${(50 + 48 * (v / most)).toFixed(1)}%`;
  const line = element(
    "div",
    { class: "wb-graph-axis", "aria-hidden": "true" },
    element("i", { class: "wb-graph-null", style: `left: ${at(low)}; width: calc(${at(high)} - ${at(low)})` }),
    element("i", { class: "wb-graph-zero", style: "left: 50%" }),
    predicted === null ? null : element("i", { class: "wb-graph-predicted", style: `left: ${at(predicted)}` }),
    element("i", { class: "wb-graph-measured", style: `left: ${at(measured)}` }),
  );
  /** @param {string} name @param {string} value @param {string} mark */
  const row = (name, value, mark) =>
    element(
      "li",
      {},
      element("span", {}, element("i", { class: mark, "aria-hidden": "true" }), name),
      element("span", { class: "wb-value" }, value),
    );
  const top = tokens
    .slice()
    .sort((a, b) => Math.max(b.before, b.after) - Math.max(a.before, a.after))
    .slice(0, 6);
  /** @param {number} v */
  const percent = (v) => `${(100 * v).toFixed(1)} %`;
  const rows = top.map(({ token, before, after }) => [
    element("span", { class: "wb-token" }, tokenText(token, 20)),
    percent(before),
    percent(after),
  ]);
  return [
    element(
      "p",
      { class: "wb-note" },
      "Change of the logit of ",
      element("span", { class: "wb-token" }, tokenText(target, 20)),
      ", one run:",
    ),
    line,
    element(
      "ol",
      { class: "wb-lines wb-graph-outcome" },
      row("measured", signed(measured), "wb-graph-measured"),
      row("predicted by the graph", predicted === null ? "no prediction" : signed(predicted), "wb-graph-predicted"),
      row("random latents, same layers", `${signed(low)} to ${signed(high)}`, "wb-graph-null"),
      row("p, against the random latents", short(p), ""),
    ),
    recordsTable(["next token", "before", "after"], rows),
  ];
}
