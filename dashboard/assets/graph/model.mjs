// The graph as the server sends it: columns of nodes and edges, and the edges at each node. Which of them are shown, and
// all influence, comes from the server too (interp/tracing/part.py).

export const KINDS = { FEATURE: 0, ERROR: 1, TOKEN: 2, LOGIT: 3 };
/** Latents and errors that a graph shows when it is opened; the slider shows more. */
const OPENING = 60;
export const KIND_NAMES = ["latent", "error", "token", "target"];

export class Model {
  /** @param {GraphContent} content */
  constructor({ nodes, edges, tokens, unit, n_layers: layers, thresholds, background, prompts }) {
    const { id, kind, layer, position, index, label, activation, effect, influence, share, probability, input } = nodes;
    this.tokens = tokens;
    this.unit = unit;
    this.layers = layers;
    this.usual = thresholds;
    this.ids = id;
    this.kind = kind;
    this.layer = layer;
    this.position = position;
    this.index = index;
    this.label = label;
    this.activation = activation;
    this.effect = effect;
    this.background = new Set(background); // lead other prompts as much
    this.prompts = prompts; // of which that was measured
    this.influence = influence;
    this.share = share;
    this.probability = probability;
    this.input = input;
    this.n = id.length;
    this.source = edges.source;
    this.target = edges.target;
    this.weight = edges.weight;
    this.m = edges.weight.length;
    this.numbers = new Map(id.map((name, i) => [name, i]));
    this.opening = opening(thresholds, share, kind, this.background);
    this.targets = id.map((_, i) => i).filter((i) => kind[i] === KINDS.LOGIT);
    this.into = byNode(edges.target, edges.weight, this.n);
    this.from = byNode(edges.source, edges.weight, this.n);
  }
}

/**
 * Thresholds on which a graph opens: those of the trace, or so much less that `OPENING` latents and errors are shown.
 * @param {{ nodes: number, edges: number }} usual @param {number[]} share @param {number[]} kind
 * @param {Set<number>} background
 */
function opening(usual, share, kind, background) {
  const ranked = share.filter((_, i) => kind[i] < KINDS.TOKEN && !background.has(i)).sort((a, b) => a - b);
  return { ...usual, nodes: Math.min(usual.nodes, ranked[OPENING - 1] ?? usual.nodes) };
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
