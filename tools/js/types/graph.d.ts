// Values of attribution graphs: what the server sends (dashboard/graph), and what the modules of assets/graph pass on.

/** graph.json */
interface GraphContent {
  unit?: "latent" | "neuron";
  n_layers: number;
  /** names of columns */
  tokens: string[];
  /** names of rows from below, the first that of tokens; without any, the numbers of layers */
  rows?: string[];
  /** latents and errors that are shown at first */
  opening?: number;
  /** share of the scores of edges at which it was traced */
  edge_share?: number;
  /** numbers of the nodes that lead other prompts as much */
  background?: number[];
  /** prompts over which that was measured */
  prompts?: number;
  /** an entry per node */
  nodes: {
    id: string[];
    kind: number[];
    layer: number[];
    position: number[];
    index?: number[];
    label: string[];
    activation?: number[];
    influence: number[];
    probability?: number[];
    /** sum of the absolute weights of the edges into it */
    input: number[];
    /** of a circuit: the number of its role, or -1 */
    role?: number[];
  };
  /** of a circuit also ids, and the number of the input that each enters */
  edges: { source: number[]; target: number[]; weight: number[]; id?: string[]; via?: number[] };
  edits: Partial<GraphEdits>;
  /** what the address of the page shows, as part.json is asked for it, and the answer */
  shown: ShownPart | ShownCircuit;
  part: GraphPart;
}

/** The body of part.json: the part of a graph that is shown. */
interface ShownPart {
  nodes: number;
  edges: number;
  target: string | null;
  pins: string[];
  hidden: string[];
}

/** The same of a circuit: its strongest edges, null as it was found; those on paths from input to output. */
interface ShownCircuit {
  n: number | null;
  paths: boolean;
}

/** graph.json of a circuit (dashboard/circuit/drawing.py) */
interface CircuitContent extends GraphContent {
  roles: string[];
  /** ways to group nodes, in words */
  proposals: Record<string, string>;
  /** edges that can be shown, and those of the circuit as it was found */
  limit: number;
  found: number;
  /** it reaches from the embedding to the logits */
  has_ends: boolean;
}

/** part.json */
interface GraphPart {
  nodes: number[];
  edges: number[];
  /** of every node on the target, signed, in logits; null for a graph without effects */
  effects: number[] | null;
  /** of a circuit: nodes of one head at two positions, and the number of shown edges in words */
  joined?: [number, number][];
  said?: string;
}

/** What a visitor changed, by node id. */
interface GraphEdits {
  pins: string[];
  groups: [name: string, ids: string[]][];
  names: Record<string, string>;
}

/** The same by node number. */
interface ResolvedEdits {
  pins: Set<number>;
  groups: { name: string; members: number[] }[];
  names: Map<number, string>;
}

interface GraphState {
  /** latents and errors that are shown, those of largest effect */
  nodes: number;
  edges: number;
  target: number | null;
  collapse: boolean;
  background: boolean;
  /** of a circuit: number of edges, null as it was found; and only those on paths from input to output */
  n?: number | null;
  paths?: boolean;
}

/** A byte per node and per edge: 1 for what is shown. */
interface Shown {
  node: Uint8Array;
  edge: Uint8Array;
  /** two nodes, and the number of the input that the line between them enters */
  joined: [number, number, number?][];
}

/** A mark of the picture: a node, or a collapsed group. */
interface Item {
  /** -1 for a group */
  node: number;
  group: number;
  members: number[];
  kind: number;
  layer: number;
  position: number;
  influence: number;
  /** effect on the target, signed; of a graph without effects the influence */
  size: number;
  role: number;
  pinned: boolean;
  label: string;
  /** of a group */
  strongest?: number;
  x: number;
  y: number;
  r: number;
  /** of a target */
  wide: number;
}

interface Links {
  from: Int32Array;
  to: Int32Array;
  weight: Float64Array;
  strength: Float32Array;
  /** of a circuit: the input that it enters */
  via: Uint8Array;
  /** sideways shift of its middle, in pixels at zoom 1 */
  bow: Float32Array;
  into: number[][];
  out: number[][];
}

interface Scene {
  items: Item[];
  links: Links;
  /** number of the item of each node, or -1 */
  at: Int32Array;
  shown: Shown;
  /** few enough for a line each */
  roomy: boolean;
  /** numbers of the items that names are for: pinned ones first, then the largest effects */
  ranked: number[];
  groupOf: Int32Array;
  isCircuit: boolean;
}

interface Layout {
  width: number;
  height: number;
  rows: { name: string; used: boolean; y: number; height: number }[];
  columns: { position: number; x: number; width: number }[];
}

/** Sizes and starts of columns and rows while a scene is laid out. */
interface Places {
  columns: number[];
  columnAt: number[];
  heights: number[];
  rowAt: number[];
  /** items side by side in a column */
  per: number[];
  look: { pitch: number; row: number };
  tall: number;
  roomy: boolean;
}

interface GraphTheme {
  surface: string;
  text: string;
  muted: string;
  grid: string;
  accent: string;
  opposite: string;
  /** colours of groups, around the marks of their members */
  groups: string[];
  /** colour and dashes of the edges of each input: of a positive weight, then of a negative one */
  lines: [colour: string, dash: number[]][];
  /** of a circuit: colours of roles */
  roles?: string[];
  font: string;
  mono: string;
  soft: string;
}

/** A drag of the view. */
interface GraphDrag {
  x: number;
  y: number;
  startX: number;
  startY: number;
  item: number;
  far: boolean;
}

/** What `Edits` reports. */
interface EditReports {
  changed(): void;
  saved(): void;
  failed(message: string): void;
}

/** A row of the list. */
interface GraphRow {
  i: number;
  label: string;
  kind: string;
  layer: number;
  position: number;
  activation: number;
  influence: number;
  probability: number;
  state: string;
}

interface ListContent {
  scene: Scene;
  edits: ResolvedEdits;
  chosen: number | null;
  labelOf(i: number): string;
}

interface ListReports {
  opened(i: number, focus?: boolean): void;
  /** false for a key that does nothing */
  key(key: string, i: number): boolean;
}

interface GraphCamera {
  x: number;
  y: number;
  zoom: number;
}

/** node.json */
interface Described {
  /** tokens that it makes the model say more than random directions do */
  says: string[];
  href: string | null;
  table: string | null;
  examples: { tokens: string[]; activations: number[]; peak: number }[];
  maximum: number;
}

/** groups.json of a circuit */
interface Proposed {
  groups: GraphEdits["groups"];
}

/** intervene.json */
interface Outcome {
  measured: number;
  predicted: number | null;
  random_low: number;
  random_high: number;
  p: number;
  target: string;
  tokens: { token: string; before: number; after: number }[];
}

/** text.json: what is written after the prompt */
interface WrittenTexts {
  clean: string;
  changed: string;
  random: string[];
}

/** split.json */
interface Split {
  total: number;
  heads: SplitHead[];
}

interface SplitHead {
  head: string;
  layer: number;
  number: number;
  query: number;
  position: number;
  token: string;
  effect: number;
  attention: number;
  href: string;
}

/** loadings.json: by layer and head */
interface LoadingsAnswer {
  headline: string;
  shares: number[][];
}

/** reasons.json */
interface Reasons {
  headline: string;
  query_side: NodeShare[];
  key_side: NodeShare[];
  pairs: { query_node: string; key_node: string; relative: number }[];
  rest: number;
  /** ids of nodes that the graph left out */
  left_out: string[];
}

interface NodeShare {
  node: string;
  value: number;
  low: number;
  high: number;
}

type Model = import("../../../dashboard/assets/graph/model.mjs").Model;
type GraphView = import("../../../dashboard/assets/graph/view.mjs").GraphView;
