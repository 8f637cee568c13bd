// Values of the chats on the page Directions, as the act `Say` answers (saes/acts/writing.py).

interface ChatReply {
  text: string;
  /** text of a token, and its shift in nats */
  tokens: [string, number][];
  cut: boolean;
  shift: number;
  /** of each token, log-odds above the threshold of a monitor; none without one */
  scores: number[];
}

interface ChatTurn {
  message: string;
  strength: number;
  replies: Record<string, ChatReply>;
}

/** What the page begins with. */
interface SayState {
  direction: string;
  monitors: string[];
  visitor: string;
}

interface ChatLine {
  error?: string;
  said: (string | null)[];
  replies: Record<string, ChatReply>;
}
