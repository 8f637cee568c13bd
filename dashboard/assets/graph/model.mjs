// The graph as numbers: nodes and edges as arrays, edges by node, shares for one target, and the part that is shown.

const [FEATURE, ERROR, TOKEN, LOGIT] = [0, 1, 2, 3];
export const KINDS = { FEATURE, ERROR, TOKEN, LOGIT };
export const KIND_NAMES = ["latent", "error", "token", "target"];

export class Model {
  /** @param {object} content graph.json: columns of nodes and edges (dashboard/graph/data.py) */
  constructor(content) {
    Object.assign(this, content.nodes);
    const { source, target, weight, share, kept } = content.edges;
    this.tokens = content.tokens;
    this.unit = content.unit;
    this.layers = content.n_layers;
    this.usual = content.thresholds;
    this.n = this.kind.length;
    this.m = source.length;
    this.source = Int32Array.from(source);
    this.target = Int32Array.from(target);
    this.weight = Float64Array.from(weight);
    this.edgeShare = share;
    this.edgeKept = kept;
    this.ids = Array.from({ length: this.n }, (_, i) => this.idOf(i));
    this.numbers = new Map(this.ids.map((id, i) => [id, i]));
    this.targets = this.ids.map((_, i) => i).filter((i) => this.kind[i] === LOGIT);
    this.into = byNode(this.target, this.weight, this.n);
    this.from = byNode(this.source, this.weight, this.n);
    this.rowSum = new Float64Array(this.n);
    for (let e = 0; e < this.m; e++) this.rowSum[this.target[e]] += Math.abs(this.weight[e]);
    this.shareCache = new Map();
  }

  idOf(i) {
    const { layer, position, index } = this;
    if (this.kind[i] === FEATURE) return `feature:${layer[i]}:${position[i]}:${index[i]}`;
    if (this.kind[i] === ERROR) return `error:${layer[i]}:${position[i]}`;
    return `${this.kind[i] === TOKEN ? "token" : "logit"}:${position[i]}:${index[i]}`;
  }

  /** Share of the stored input of its target that an edge is. */
  part(e) {
    return Math.abs(this.weight[e]) / (this.rowSum[this.target[e]] || 1);
  }

  /** Influence of every node on weighted targets, as interp/tracing/influence.py defines it, over the stored edges. */
  influenceOn(weights) {
    const order = Array.from({ length: this.n }, (_, i) => i).sort((a, b) => this.layer[b] - this.layer[a]);
    const total = new Float64Array(this.n);
    for (const t of order) {
      const reach = total[t] + weights[t];
      if (reach) for (const e of this.into[t]) total[this.source[e]] += this.part(e) * reach;
    }
    return total;
  }

  /** Cumulative shares of nodes and edges: the stored ones, or for one target alone. */
  shares(target) {
    if (target === null) return { nodes: this.share, edges: this.edgeShare };
    if (!this.shareCache.has(target)) {
      const weights = new Float64Array(this.n);
      weights[target] = 1;
      const total = this.influenceOn(weights);
      const scores = Float64Array.from(
        { length: this.m },
        (_, e) => this.part(e) * (total[this.target[e]] + weights[this.target[e]]),
      );
      this.shareCache.set(target, { nodes: cumulative(total), edges: cumulative(scores) });
    }
    return this.shareCache.get(target);
  }

  /** Which nodes and edges are shown: `{nodes, edges, target}` are two thresholds and the number of a target or null. */
  shown({ nodes, edges, target, pins, hidden }) {
    const usual = target === null && nodes === this.usual.nodes && edges === this.usual.edges;
    const shares = this.shares(target);
    const node = usual ? Uint8Array.from(this.kept) : within(shares.nodes, nodes);
    const edge = usual ? Uint8Array.from(this.edgeKept) : within(shares.edges, edges);
    for (let i = 0; i < this.n; i++) {
      if (this.kind[i] === TOKEN) node[i] = 1;
      if (this.kind[i] === LOGIT) node[i] = target === null || target === i ? 1 : 0;
    }
    for (let e = 0; e < this.m; e++) edge[e] &&= node[this.source[e]] && node[this.target[e]];
    if (!usual) this.drop(node, edge);
    for (const i of pins) node[i] = 1;
    for (const i of hidden) node[i] = 0;
    const limit = usual ? null : within(shares.edges, edges);
    for (let e = 0; e < this.m; e++) {
      const pinned = pins.has(this.source[e]) || pins.has(this.target[e]);
      if (pinned && !edge[e]) edge[e] = usual ? this.edgeShare[e] <= edges : limit[e];
      edge[e] &&= node[this.source[e]] && node[this.target[e]];
    }
    return { node, edge };
  }

  /** Drop latents and errors that nothing reads, and latents without a source, until nothing changes. */
  drop(node, edge) {
    for (let changed = true; changed; ) {
      changed = false;
      for (let i = 0; i < this.n; i++) {
        if (!node[i] || this.kind[i] > ERROR) continue;
        const read = this.from[i].some((e) => edge[e]);
        const fed = this.kind[i] === ERROR || this.into[i].some((e) => edge[e]);
        if (read && fed) continue;
        node[i] = 0;
        for (const e of this.from[i]) edge[e] = 0;
        for (const e of this.into[i]) edge[e] = 0;
        changed = true;
      }
    }
  }
}

/** Numbers of the edges at each node, the largest weight first. */
function byNode(ends, weight, n) {
  const found = Array.from({ length: n }, () => []);
  for (let e = 0; e < ends.length; e++) found[ends[e]].push(e);
  for (const edges of found) edges.sort((a, b) => Math.abs(weight[b]) - Math.abs(weight[a]) || a - b);
  return found;
}

/** For each score the share of the sum that it and all larger ones hold: low means important. */
export function cumulative(scores) {
  const order = Array.from(scores.keys()).sort((a, b) => scores[b] - scores[a] || a - b);
  const total = order.reduce((sum, i) => sum + scores[i], 0);
  const out = new Float64Array(scores.length).fill(1);
  let sum = 0;
  for (const i of total > 0 ? order : []) {
    sum += scores[i];
    out[i] = sum / total;
  }
  return out;
}

/** Marks of the fewest entries that together hold a share of the sum, given cumulative shares. */
export function within(shares, share) {
  let limit = Infinity;
  for (const each of shares) if (each >= share - 1e-9 && each < limit) limit = each;
  return Uint8Array.from(shares, (each) => (share > 0 && each <= limit ? 1 : 0));
}
