// The side panel: the chosen node with its examples and its edges, or how to read the graph.

import { button, count, element, short, signed } from "../dom.mjs";
import { Heads } from "./heads.mjs";
import { Intervene } from "./intervene.mjs";
import { Loadings } from "./loadings.mjs";
import { failure, tokenText } from "./marks.mjs";
import { KIND_NAMES, KINDS } from "./model.mjs";

const ROWS = 12;

/** @param {string} text */
export const quiet = (text) => element("p", { class: "wb-note" }, text);

export class Panel {
  /** @param {HTMLElement} root @param {GraphView} view */
  constructor(root, view) {
    this.view = view;
    this.asked = 0;
    /** @type {Set<string>} */
    this.open = new Set();
    this.intervene = new Intervene(view);
    this.heads = new Heads(view);
    /** @type {string | null} */
    this.drawnFor = null;
    this.node = element("section", { class: "wb-panel wb-graph-chosen", "aria-label": "Chosen node" });
    this.loadings = new Loadings(view, this.intervene.visitor);
    root.replaceChildren(this.node, this.intervene.root, view.groups.root, this.loadings.root);
  }

  draw() {
    this.drawNode();
    this.intervene.draw();
  }

  drawNode() {
    const { view } = this,
      i = view.chosen;
    const key = i === null ? null : String(i);
    if (key !== this.drawnFor) this.open.clear();
    const focused = /** @type {HTMLElement | null} */ (document.activeElement);
    const had = this.node.contains(focused) && key === this.drawnFor ? focused?.dataset.act : null;
    this.drawnFor = key;
    this.node.replaceChildren(...(i === null ? this.reading() : this.chosen(i)));
    if (had) /** @type {HTMLElement | null} */ (this.node.querySelector(`[data-act="${had}"]`))?.focus();
  }

  /** How to read the graph, while nothing is chosen. */
  reading() {
    const { model, state } = this.view;
    const { signs, sizes } = model;
    const latents = Array.from(sizes.keys()).filter((i) => model.kind[i] === KINDS.FEATURE);
    const strongest = latents
      .filter((i) => state.background || !model.background.has(i))
      .sort((a, b) => Math.abs(sizes[b]) - Math.abs(sizes[a]))
      .slice(0, ROWS);
    const most = Math.abs(sizes[strongest[0]]) || 1;
    return [
      element(
        "h2",
        { tabindex: "-1" },
        signs
          ? `Largest effects on ${tokenText(model.answer(state.target), 30)}`
          : "Latents with the largest influence",
      ),
      quiet(
        signs
          ? `In logits, on all paths; those below 0 argue against ${tokenText(model.answer(state.target), 30)}.`
          : "Influence: the share of all direct effects from the targets back that passes through a node.",
      ),
      strongest.length
        ? element("ol", { class: "wb-graph-edges" }, ...strongest.map((i) => this.effect(i, most)))
        : element("p", { class: "wb-none" }, "This graph has no latent: only errors lie between tokens and targets."),
      this.background(latents),
    ].filter((part) => part !== null);
  }

  /** A node with its effect on the answer. @param {number} i @param {number} most */
  effect(i, most) {
    const { model, state } = this.view,
      size = model.sizes[i],
      negative = `argues against ${tokenText(model.answer(state.target), 30)}`;
    return this.line(i, size, Math.abs(size) / most, true, negative);
  }

  /** What is the same on every prompt, in one line. @param {number[]} latents */
  background(latents) {
    const { model, state } = this.view,
      common = latents.filter((i) => model.background.has(i)).length;
    if (!common) return null;
    return element(
      "p",
      { class: "wb-note", title: `They lead ${model.prompts} other prompts as much, on average` },
      `${count(common)} nodes appear on any prompt; ${state.background ? "shown" : "hidden"}. `,
      button(state.background ? "Hide them" : "Show them", {
        class: "wb-link",
        onclick: () => this.view.change({ background: !state.background }),
      }),
    );
  }

  /** @param {number} i */
  chosen(i) {
    const { view } = this,
      { model } = view,
      latent = model.kind[i] === KINDS.FEATURE;
    const where = model.kind[i] < KINDS.TOKEN ? `layer ${model.layer[i]}, ` : "";
    /** @type {(string[] | false)[]} */
    const facts = [
      latent && ["activation", short(model.activation[i])],
      latent &&
        model.signs && [
          model.sizes[i] < 0
            ? `effect, argues against ${tokenText(model.answer(view.state.target), 20)}`
            : "effect, logits",
          signed(model.sizes[i]),
        ],
      model.kind[i] !== KINDS.LOGIT && ["influence", short(model.influence[i])],
    ];
    const place = element(
      "p",
      { class: "wb-note" },
      `${latent ? `${model.unit} ${model.index[i]}` : KIND_NAMES[model.kind[i]]}, ${where}on token ${model.position[i]} `,
      element("span", { class: "wb-token" }, tokenText(model.tokens[model.position[i]], 20)),
      model.kind[i] === KINDS.LOGIT ? `, ${model.chance(i)}` : null,
    );
    return [
      element("h2", { tabindex: "-1", dir: "auto" }, tokenText(view.labelOf(i), 90)),
      place,
      element(
        "div",
        { class: "wb-stats" },
        ...facts
          .filter((fact) => fact !== false)
          .map(([name, value, hint]) =>
            element(
              "div",
              { class: "wb-stat", title: hint },
              element("span", { class: "wb-stat-value" }, value),
              element("span", { class: "wb-stat-label" }, name),
            ),
          ),
      ),
      this.acts(i),
      latent && i < model.stored ? this.examples(i) : null,
      ...this.edges("Feeds it", model.into[i], model.source, i, "in"),
      this.heads.draw(i),
      ...this.edges("It feeds", model.from[i], model.target, i, "out"),
    ].filter((part) => part !== null);
  }

  /** @param {number} i */
  acts(i) {
    const { view } = this,
      pinned = view.resolved.pins.has(i);
    return element(
      "div",
      { class: "wb-graph-acts" },
      button(pinned ? "Unpin" : "Pin", { "data-act": "pin", title: "p", onclick: () => view.act("p", i) }),
      view.model.kind[i] === KINDS.FEATURE
        ? button("Change", {
            "data-act": "change",
            title: "i: multiply its activation, among the interventions",
            onclick: () => view.act("i", i),
          })
        : null,
      button("Name…", { "data-act": "name", title: "n", onclick: () => this.rename(i) }),
      button("Close", { "data-act": "close", title: "Esc", onclick: () => view.choose(null) }),
    );
  }

  /** Ask for the name of a node: Enter saves, Escape leaves. @param {number} i */
  rename(i) {
    const { view } = this,
      id = view.model.ids[i],
      back = document.activeElement;
    const input = element("input", {
      type: "text",
      maxlength: 200,
      value: view.labelOf(i),
      "aria-label": "Name of the node",
    });
    const form = element(
      "form",
      { class: "wb-graph-form" },
      input,
      element("button", { type: "submit", class: "wb-act wb-act-quiet" }, "Save"),
    );
    const end = () => {
      form.remove();
      if (back instanceof HTMLElement) back.focus();
    };
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      end();
      view.edits.rename(id, input.value.trim());
    });
    form.addEventListener("keydown", (event) => {
      event.stopPropagation();
      if (event.key === "Escape") end();
    });
    this.node.querySelector(".wb-graph-form")?.remove();
    this.node.querySelector(".wb-graph-acts")?.after(form);
    input.focus();
    input.select();
  }

  /** Examples of the features table, and the link to the latent's page. @param {number} i */
  examples(i) {
    const holder = element("div", { class: "wb-graph-examples" }),
      ticket = ++this.asked;
    const known = this.view.described.get(i);
    /** @param {Described} found */
    const show = (found) =>
      holder.replaceChildren(
        ...(found.table
          ? described(found)
          : [quiet("No examples: no features table describes this layer’s dictionary.")]),
      );
    if (known) show(known);
    else {
      this.view.ask(`node.json?n=${i}`).then(
        (answer) => {
          const found = /** @type {Described} */ (answer);
          this.view.described.set(i, found);
          if (ticket === this.asked) show(found);
        },
        (error) => holder.replaceChildren(failure(error)),
      );
    }
    return holder;
  }

  /** @param {string} title @param {number[]} edges @param {number[]} ends @param {number} i @param {string} side */
  edges(title, edges, ends, i, side) {
    const { view } = this,
      { model } = view,
      open = this.open.has(side);
    if (!edges.length)
      return model.kind[i] === KINDS.TOKEN || model.kind[i] === KINDS.LOGIT
        ? []
        : [element("h3", {}, title), element("p", { class: "wb-none" }, "No edge is stored.")];
    const most = Math.abs(model.weight[edges[0]]) || 1,
      some = open ? edges : edges.slice(0, ROWS);
    const lines = some.map((e) =>
      this.line(ends[e], model.weight[e], Math.abs(model.weight[e]) / most, view.scene.shown.edge[e] === 1),
    );
    return [
      element("h3", {}, title, element("span", { class: "wb-quiet" }, `${count(edges.length)} direct effects`)),
      element("ol", { class: "wb-graph-edges" }, ...lines),
      edges.length > ROWS && !open
        ? button(`Show all ${count(edges.length)}`, {
            class: "wb-link",
            "data-act": `more-${side}`,
            onclick: () => {
              this.open.add(side);
              this.drawNode();
            },
          })
        : null,
    ].filter((part) => part !== null);
  }

  /**
   * A link to a node with a signed bar.
   * @param {number} i @param {number} weight @param {number} share @param {boolean} seen
   * @param {string} [negative] what a bar below 0 means
   */
  line(i, weight, share, seen, negative) {
    const { view } = this,
      { model } = view,
      where = model.kind[i] < KINDS.TOKEN ? `L${model.layer[i]} ` : "";
    const link = element(
      "a",
      {
        href: view.addressOf({ at: model.ids[i] }),
        class: `wb-graph-line${seen ? "" : " wb-graph-weak"}`,
        title: seen ? (weight < 0 ? negative : null) : "Below the thresholds: not drawn",
      },
      element("span", { class: "wb-graph-line-label", dir: "auto" }, tokenText(view.labelOf(i), 60)),
      element(
        "span",
        { class: "wb-quiet" },
        where,
        element("span", { class: "wb-token" }, tokenText(model.tokens[model.position[i]], 10)),
      ),
      element("span", { class: "wb-value" }, (negative === undefined || model.signs ? signed : short)(weight)),
      element("span", {
        class: `wb-graph-bar${weight < 0 ? " wb-graph-negative" : ""}`,
        style: `width: ${(100 * share).toFixed(1)}%`,
        "aria-hidden": "true",
      }),
    );
    link.addEventListener("click", (event) => {
      if (event.ctrlKey || event.metaKey || event.shiftKey) return;
      event.preventDefault();
      view.choose(i, true);
    });
    link.addEventListener("mouseenter", () => view.point(i));
    link.addEventListener("mouseleave", () => view.point(null));
    return element("li", {}, link);
  }

  focus() {
    this.node.querySelector("h2")?.focus();
  }
}

/** @param {Described} given */
function described({ href, table, examples, maximum, says }) {
  const lines = examples.map(({ tokens, activations, peak }) =>
    element(
      "li",
      { class: "wb-tokens", dir: "auto" },
      ...tokens.map((token, k) => {
        const a = activations[k] > 0 ? 0.12 + 0.6 * Math.min(1, activations[k] / (maximum || 1)) : 0;
        return element(
          "span",
          {
            class: a ? `wb-mark${k === peak ? " wb-peak" : ""}` : null,
            style: a ? `--a: ${a.toFixed(2)}` : null,
            title: a ? short(activations[k]) : null,
          },
          k === peak ? tokenText(token, 40).replace(/^␣(?=.)/, " ") : plain(token),
        );
      }),
    ),
  );
  return [
    href
      ? element(
          "p",
          {},
          element("a", { href, class: "wb-link" }, "Open its feature page"),
          element("span", { class: "wb-quiet" }, ` (${table})`),
        )
      : "",
    says.length
      ? element(
          "p",
          { class: "wb-note", dir: "auto", title: "read through the Jacobian lens; more than random directions do" },
          `Makes the model say ${says.map((token) => tokenText(token, 20)).join(", ")}`,
        )
      : "",
    lines.length
      ? element("ol", { class: "wb-graph-example-list", "aria-label": "Examples" }, ...lines)
      : quiet("It fired on none of the tokens of the recording."),
  ];
}

/** @param {string} token */
const plain = (token) =>
  String(token)
    .replace(/\r\n|\r|\n/g, "↵")
    .slice(0, 200);
