// Values of the chats on the page Directions: a conversation as the page has it (interp/directions/chats.py), and what
// the routes of dashboard/directions/page.py answer.

type MovedToken = [text: string, shift: number];

interface ChatReply {
  text: string;
  tokens: MovedToken[];
  cut: boolean;
  /** of each token that a monitor read, log-odds above its threshold; none without one */
  scores?: number[];
}

interface ChatTurn {
  message: string;
  strengths: Record<string, number>;
  replies: Record<string, ChatReply>;
}

/** An intervention along a direction of the workspace, or of a file, which has a vector. */
interface ChatStep {
  target: { hook_point: string; artefact?: string; vector?: number[] };
  action: string;
  amount: number;
}

interface Conversation {
  name: string;
  steps: ChatStep[];
  model: string;
  weight_hash: string;
  names: string[];
  strengths: number[];
  random: boolean;
  system: string;
  turns: ChatTurn[];
  n_new: number;
  temperature: number;
  seed: number;
}

/** The fields of a conversation that a visitor sets. */
type Defaults = Pick<Conversation, "random" | "n_new" | "temperature" | "seed" | "system">;

/** What the page begins with. */
interface SayState {
  direction: string;
  directions: string[];
  monitors: string[];
  kept: string;
  visitor: string;
}

interface SteeredDirection {
  name: string;
  step: ChatStep;
  model: string;
  weight_hash: string;
  chosen: boolean;
  furthest: number;
}

interface CheckedChat {
  conversation: Conversation;
  template: boolean;
  context: number;
}

interface ChatLine {
  error?: string;
  said: (MovedToken | null)[];
  scores: (number | null)[];
  replies: Record<string, ChatReply>;
}
