// Values of the prompt page: what the server sends (dashboard/prompt), and what the modules of assets/prompt pass on.

interface Prompt {
  model: string;
  text: string;
  features: string | null;
  chat?: boolean;
}

/** The one selection that all views share. */
interface PromptSelection {
  token: number;
  key: number | null;
  layer: number;
  head: number;
  feature: number | null;
}

interface Asked {
  answer: string;
  contrast: string;
}

/** An array of unsigned integers. */
interface Picture {
  shape: number[];
  dtype: string;
  base64: string;
}

/** The answer of `read_prompt`. */
interface Reading {
  tokens: string[];
  losses: (number | null)[];
  vocabulary: number;
  seconds: number;
  n_layers: number;
  n_heads: number;
  layers: string[];
  /** [layer, head, side, side]: small pictures of every head */
  patterns: Picture;
  features: [latent: number, activation: number, below: number | null][][];
  labels: Record<number, string>;
  active: number[];
  random_active: number[];
  random_strongest: number[];
  lenses: [kind: string, said: string][];
  likeliest: string;
}

interface PromptView {
  select(): void;
  paint?(): void;
  answer?(): void;
  colour?(kind: string): void;
}

interface PromptState {
  run: Prompt;
  visitor: string;
  reading: Reading;
  asked: Asked;
  colour: string;
  attention: number[] | null;
  activations: number[] | null;
  views: Record<string, PromptView>;
  selection: PromptSelection;
  observer: MutationObserver;
  asking(): { text: string; model: string; chat: boolean; visitor: string };
  select(changes: Partial<PromptSelection>): void;
}

interface PromptTheme {
  scale: Stops;
  text: string;
  muted: string;
  grid: string;
  accent: string;
  opposite: string;
  /** text on pale and on dark cells */
  on: [string, string];
}

/** Answers of `/api/act/<act>`. */
interface PromptAnswers {
  read_prompt: Reading;
  activations: number[];
  next_tokens: {
    token: string;
    after: number;
    entropy: number;
    uniform: number;
    guesses: [token: string, p: number][];
  };
  attention: { cells: Picture };
  read_layers: {
    start: number;
    followed: string | null;
    /** [layer][position]: the likeliest tokens */
    cells: [token: string, p: number][][][];
    rank: number[][];
    probability: number[][];
    others: number[];
    top_elsewhere: number[][];
    rank_elsewhere: number[][];
    /** [layer]: whether its words come from the activation, a sentence; empty where that was not measured */
  };
  judge_steering: { headline: string };
}

/** What the lens says of one position, an entry per layer. */
interface LensColumn {
  cells: [token: string, p: number][][];
  followed: string | null;
  rank: number[];
  probability: number[];
  others: number;
  top: number[];
  usual: number[];
}

/** A line of a continuation on its way. */
interface SteerStep {
  error?: string;
  number: number;
  tokens: [token: string, p: number][];
  unchanged: number[][];
}

/** A token that a continuation wrote. */
interface Written {
  token: string;
  p: number;
  span: HTMLElement;
}

type Rgb = [red: number, green: number, blue: number];
