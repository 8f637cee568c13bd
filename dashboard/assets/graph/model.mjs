// The graph as the server sends it: columns of nodes and edges, and the edges at each node. Which of them are shown, and
// all influence, comes from the server too (interp/tracing/part.py; of a circuit, dashboard/circuit/_drawing.py).

export const KINDS = { FEATURE: 0, ERROR: 1, TOKEN: 2, LOGIT: 3 };
export const KIND_NAMES = ["latent", "error", "token", "target"];

export class Model {
  /** @param {GraphContent} content */
  constructor({ nodes, edges, tokens, rows, unit = "latent", n_layers: layers, edge_share: share = 1, ...more }) {
    const { id, kind, layer, position, index = [], label, activation = [], influence, probability = [], input } = nodes;
    const { background = [], prompts = 0, opening = 0 } = more;
    this.tokens = tokens;
    this.rows = rows ?? ["tokens", ...Array.from({ length: layers }, (_, i) => `L${i}`)];
    this.unit = unit;
    this.layers = layers;
    this.opening = opening; // latents and errors that are shown at first
    this.edgeShare = share; // at which it was traced
    this.ids = id;
    this.kind = kind;
    this.layer = layer;
    this.position = position;
    this.index = index;
    this.label = label;
    this.activation = activation;
    this.background = new Set(background); // lead other prompts as much
    this.prompts = prompts; // of which that was measured
    this.influence = influence;
    this.signs = false; // graphs of other programs have no effects
    this.sizes = influence; // effects on the target, by which nodes are ranked, where there are any
    this.probability = probability;
    this.input = input;
    this.n = this.stored = id.length; // without those that `add` adds
    this.source = edges.source;
    this.target = edges.target;
    this.weight = edges.weight;
    this.role = nodes.role; // of a circuit: number of its colour, or -1
    this.via = edges.via; // of a circuit: number of the input that it enters
    this.edgeIds = edges.id ?? []; // of a circuit: its edges can be chosen
    this.m = edges.weight.length;
    this.numbers = new Map(id.map((name, i) => [name, i]));
    this.targets = id.map((_, i) => i).filter((i) => kind[i] === KINDS.LOGIT);
    this.into = byNode(edges.target, edges.weight, this.n);
    this.from = byNode(edges.source, edges.weight, this.n);
  }

  /** @param {number[] | null} effects */
  rank(effects) {
    this.signs = effects !== null;
    this.sizes = effects ? [...effects, ...new Array(this.n - effects.length).fill(0)] : this.influence;
  }

  /** Add a node that the graph left out, by its id. @param {string} id */
  add(id) {
    const [kind, ...at] = id.split(":"),
      [layer, position, index = -1] = (kind === "token" ? [-1, ...at] : at).map(Number);
    const zeros = new Set([this.activation, this.influence, this.probability, this.input, this.sizes]);
    for (const column of zeros) column.push(0);
    this.ids.push(id);
    this.kind.push(kind === "feature" ? KINDS.FEATURE : kind === "error" ? KINDS.ERROR : KINDS.TOKEN);
    this.layer.push(layer);
    this.position.push(position);
    this.index.push(index);
    this.label.push("");
    this.into.push([]);
    this.from.push([]);
    this.numbers.set(id, this.n);
    this.n += 1;
  }

  /** Nodes from which edges lead to a node, and itself. @param {number} i */
  behind(i) {
    const found = new Set([i]); // which grows while it is read
    for (const k of found) for (const e of this.into[k]) found.add(this.source[e]);
    return found;
  }

  /** Probability of a target in words; one that was named has its weight, 1, in its stead. @param {number} i */
  chance(i) {
    const p = this.probability[i];
    return this.targets.length === 1 && p === 1 ? "named target" : `probability ${(100 * p).toFixed(1)} %`;
  }

  /** The word of a target, by default of the first, without what it stands against. @param {number | null} target */
  answer(target) {
    const label = this.label[target ?? this.targets[0]] ?? "";
    return label.split(" - ")[0].trim() || label;
  }

  /** Latents and errors that may be shown. @param {boolean} background also those that lead other prompts as much */
  between(background) {
    return this.kind.filter((kind, i) => kind < KINDS.TOKEN && (background || !this.background.has(i))).length;
  }
}

/**
 * Numbers of the edges at each node, the largest weight first.
 * @param {number[]} ends @param {number[]} weight @param {number} n
 */
function byNode(ends, weight, n) {
  /** @type {number[][]} */
  const found = Array.from({ length: n }, () => []);
  for (let e = 0; e < ends.length; e++) found[ends[e]].push(e);
  for (const edges of found) edges.sort((a, b) => Math.abs(weight[b]) - Math.abs(weight[a]) || a - b);
  return found;
}
