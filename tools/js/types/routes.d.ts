// Routes of a prompt: what the server sends (interp/routes/routes.py), and what the modules of assets/routes pass on.

interface TokenChance {
  text: string;
  probability: number;
}

interface RouteLayers {
  first: number;
  last: number;
  share: number;
  /** layers between two points of the curves */
  step: number;
  from_layer: number[];
  up_to: number[];
  heads: { layer: number; head: number; effect: number; attention: number }[];
}

interface CarriedWords {
  words: string[];
  strength: number;
  null: number;
  without_mlps: boolean;
}

interface CarriedFeature {
  features: string;
  number: number;
  label: string;
  fall: number;
  null: number;
}

interface RouteStation {
  first: number;
  last: number;
  effect: number;
  words: string[];
  restates: boolean;
}

interface RouteWord {
  text: string;
  first: number;
  stop: number;
  total: number;
  kl: number;
  stations: RouteStation[];
}

interface WordRoute {
  source: number;
  destination: number;
  effect: number;
  kl: number;
  after: TokenChance[];
  with_words: number[];
  usual: number | null;
  layers: RouteLayers | null;
  carried: CarriedWords | null;
  features: CarriedFeature[];
}

interface SwapEffect {
  answer: number;
  counterpart: number;
  moved: number;
}

interface RouteSwap {
  source: number;
  destination: number;
  word: string;
  instead: string;
  prompt: string;
  answer: string;
  counterpart: string;
  before: SwapEffect;
  after: SwapEffect;
  says: TokenChance[];
  whole: number;
  others: number | null;
  null: number[];
  aligned: boolean;
}

interface EnoughRoutes {
  routes: [source: number, destination: number][];
  n_edges: number;
  probability: number;
  kl: number;
  kl_none: number;
  null: number[];
}

/** A stored or streamed value; `error` is the last line of a stream that failed. */
interface RoutesValue {
  error?: string;
  headline?: string;
  settings: { model: string; text: string; chat: boolean; answer: string; nulls: string };
  answer: string;
  probability: number;
  n_edges: number;
  measured: number;
  tokens: string[];
  says: TokenChance[];
  words: RouteWord[];
  routes: WordRoute[];
  swaps: RouteSwap[];
  enough: EnoughRoutes | null;
  lens: string;
}

/** A word of the line, or a run of words that is left out of it. */
interface LinePart {
  /** number of the word; -1 for words that are left out */
  word: number;
  text: string;
  /** width of its box, and of the room that it takes with its station, pixels */
  wide: number;
  slot: number;
  /** where that room begins */
  at: number;
  station: RouteStation | undefined;
}

/** The question of the act `why`. */
interface RoutesAsked {
  text: string;
  model: string;
  chat: boolean;
  answer: string;
  visitor: string;
}
