// Interventions: multiply activations of latents in the model, beside the graph's prediction and random latents.

import { element, recordsTable, short, signed } from "../dom.mjs";
import { failure, tokenText } from "./marks.mjs";
import { KINDS } from "./model.mjs";

const FACTORS = [
  ["0", "ablate (× 0)"],
  ["-1", "reverse (× −1)"],
  ["2", "double (× 2)"],
  ["5", "× 5"],
];
const MODES = [
  ["free", "nothing frozen"],
  ["attention", "attention frozen"],
  ["direct", "all frozen: direct effect alone"],
];

export class Intervene {
  /** @param {GraphView} view */
  constructor(view) {
    this.view = view;
    this.chosen = { scope: "node", factor: "0", mode: "free" };
    this.visitor = Math.random().toString(36).slice(2);
    this.ticket = 0;
    this.drawnFor = -1;
    this.opened = false;
    this.answer = element("div", { role: "status" });
  }

  /** The part of the side panel for a chosen latent. @param {number} i */
  draw(i) {
    const { view } = this,
      { model } = view;
    /** @param {number} k */
    const latent = (k) => model.kind[k] === KINDS.FEATURE;
    const group = view.resolved.groups.find(({ members }) => members.includes(i));
    /** @type {[key: string, text: string, nodes: number[]][]} */
    const scopes = [["node", "this latent", [i]]];
    if (group)
      scopes.push([
        "group",
        `the group “${tokenText(group.name, 24)}” (${group.members.filter(latent).length})`,
        group.members.filter(latent),
      ]);
    if (view.marked.size) scopes.push(["marked", `the ${view.marked.size} marked`, [...view.marked].filter(latent)]);
    if (!scopes.some(([key]) => key === this.chosen.scope)) this.chosen.scope = "node";
    if (this.drawnFor !== i) this.answer.replaceChildren();
    this.drawnFor = i;
    /** @param {string} label @param {string[][]} choices @param {"scope" | "factor" | "mode"} name */
    const menu = (label, choices, name) => {
      const made = element("select", {
        class: "wb-native",
        "aria-label": label,
        "data-act": `intervene-${name}`,
        onchange: () => {
          this.chosen[name] = made.value;
        },
      });
      made.append(
        ...choices.map(([key, text]) => element("option", { value: key, selected: key === this.chosen[name] }, text)),
      );
      return made;
    };
    const run = element(
      "button",
      {
        type: "button",
        class: "wb-act wb-act-quiet",
        "data-act": "intervene",
        onclick: () => this.run(scopes.find(([key]) => key === this.chosen.scope)?.[2] ?? [i]),
      },
      "Run in the model",
    );
    const folded = element(
      "details",
      {
        class: "wb-folded wb-graph-intervene",
        open: this.opened,
        ontoggle: () => {
          this.opened = folded.open;
        },
      },
      element("summary", {}, "Intervene"),
      element(
        "div",
        { class: "wb-graph-acts" },
        scopes.length > 1
          ? menu(
              "Latents",
              scopes.map(([key, text]) => [key, text]),
              "scope",
            )
          : null,
        menu("Change", FACTORS, "factor"),
        menu("Mode", MODES, "mode"),
        run,
      ),
      this.answer,
    );
    return folded;
  }

  /** @param {number[]} numbers */
  async run(numbers) {
    const { view } = this,
      ticket = ++this.ticket,
      nodes = numbers.map((i) => view.model.ids[i]);
    this.answer.replaceChildren(
      element("p", { class: "wb-note" }, "Running the prompt with the change, and with random latents…"),
    );
    try {
      const found = await view.ask("intervene.json", {
        nodes,
        factor: Number(this.chosen.factor),
        mode: this.chosen.mode,
        visitor: this.visitor,
      });
      if (ticket === this.ticket) this.answer.replaceChildren(...outcome(/** @type {Outcome} */ (found)));
    } catch (error) {
      if (ticket === this.ticket) this.answer.replaceChildren(failure(error));
    }
  }
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
      ":",
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
