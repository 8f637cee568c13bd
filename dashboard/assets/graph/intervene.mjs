// Interventions: multiply activations of latents in the model, beside the graph's prediction and random latents.

import { element, short } from "../dom.mjs";
import { tokenText } from "./marks.mjs";
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
const signed = (value) => (value > 0 ? "+" : "") + short(value).replace("-", "−");

export class Intervene {
  constructor(view) {
    Object.assign(this, {
      view,
      factor: "0",
      mode: "free",
      scope: "node",
      visitor: Math.random().toString(36).slice(2),
      ticket: 0,
    });
    this.answer = element("div", { role: "status" });
  }

  /** The part of the side panel for a chosen latent. */
  draw(i) {
    const { view } = this,
      { model } = view;
    const latent = (k) => model.kind[k] === KINDS.FEATURE;
    const group = view.resolved.groups.find(({ members }) => members.includes(i));
    const scopes = [["node", "this latent", [i]]];
    if (group)
      scopes.push([
        "group",
        `the group “${tokenText(group.name, 24)}” (${group.members.filter(latent).length})`,
        group.members.filter(latent),
      ]);
    if (view.marked.size) scopes.push(["marked", `the ${view.marked.size} marked`, [...view.marked].filter(latent)]);
    if (!scopes.some(([key]) => key === this.scope)) this.scope = "node";
    if (this.drawnFor !== i) this.answer.replaceChildren();
    this.drawnFor = i;
    const menu = (label, choices, name) => {
      const made = element("select", {
        class: "wb-native",
        "aria-label": label,
        "data-act": `intervene-${name}`,
        onchange: () => {
          this[name] = made.value;
        },
      });
      made.append(
        ...choices.map(([key, text]) => element("option", { value: key, selected: key === this[name] }, text)),
      );
      return made;
    };
    const run = element(
      "button",
      {
        type: "button",
        class: "wb-act wb-act-quiet",
        "data-act": "intervene",
        onclick: () => this.run(scopes.find(([key]) => key === this.scope)[2]),
      },
      "Run in the model",
    );
    return element(
      "details",
      {
        class: "wb-folded wb-graph-intervene",
        open: this.opened,
        ontoggle: (event) => {
          this.opened = event.target.open;
        },
      },
      element("summary", {}, "Intervene"),
      element(
        "div",
        { class: "wb-graph-acts" },
        scopes.length > 1 ? menu("Latents", scopes, "scope") : null,
        menu("Change", FACTORS, "factor"),
        menu("Mode", MODES, "mode"),
        run,
      ),
      this.answer,
    );
  }

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
        factor: Number(this.factor),
        mode: this.mode,
        visitor: this.visitor,
      });
      if (ticket === this.ticket) this.answer.replaceChildren(...outcome(found));
    } catch (error) {
      if (ticket === this.ticket)
        this.answer.replaceChildren(element("p", { class: "wb-graph-failed" }, error.message));
    }
  }
}

/** Measured effect, prediction and null on one line, in words, and the next tokens before and after. */
function outcome(found) {
  const { measured, predicted, random_low: low, random_high: high, p, target, tokens } = found;
  const values = [measured, predicted, low, high, 0].filter((v) => v !== null),
    most = Math.max(...values.map(Math.abs)) || 1;
  const at = (v) => `${(50 + 48 * (v / most)).toFixed(1)}%`;
  const line = element(
    "div",
    { class: "wb-graph-axis", "aria-hidden": "true" },
    element("i", { class: "wb-graph-null", style: `left: ${at(low)}; width: calc(${at(high)} - ${at(low)})` }),
    element("i", { class: "wb-graph-zero", style: "left: 50%" }),
    predicted === null ? null : element("i", { class: "wb-graph-predicted", style: `left: ${at(predicted)}` }),
    element("i", { class: "wb-graph-measured", style: `left: ${at(measured)}` }),
  );
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
  const percent = (v) => `${(100 * v).toFixed(1)} %`;
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
    element(
      "table",
      { class: "wb-evidence wb-records" },
      element(
        "thead",
        {},
        element("tr", {}, ...["next token", "before", "after"].map((name) => element("th", { scope: "col" }, name))),
      ),
      element(
        "tbody",
        {},
        ...top.map(({ token, before, after }) =>
          element(
            "tr",
            {},
            element("td", {}, element("span", { class: "wb-token" }, tokenText(token, 20))),
            element("td", {}, percent(before)),
            element("td", {}, percent(after)),
          ),
        ),
      ),
    ),
  ];
}
