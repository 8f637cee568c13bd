// Requests to our own routes, and their refusals as errors.

/** The server refused: `message` is its sentence, `found` its answer. */
export class Refusal extends Error {
  /** @param {number} status @param {string} text */
  constructor(status, text) {
    super(text.trim().slice(0, 300) || `the server answered ${status}`);
    this.status = status;
    /** @type {Record<string, string>} */
    this.found = {};
    try {
      this.found = JSON.parse(text); // of our routes; the guard before them answers in plain text
      this.message = this.found.error ?? this.message;
    } catch {}
  }
}

/**
 * Ask an address, with a body by POST. Throws `Refusal`.
 * @param {string} address @param {unknown} [body] @param {RequestInit} [options]
 */
export async function request(address, body, options = {}) {
  const sent = { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) };
  const answer = await fetch(address, body === undefined ? options : { ...sent, ...options });
  if (!answer.ok) throw new Refusal(answer.status, await answer.text());
  return answer;
}

/**
 * Ask an address for JSON. Throws `Refusal`.
 * @param {string} address @param {unknown} [body] @param {RequestInit} [options] @returns {Promise<unknown>}
 */
export const json = async (address, body, options) => (await request(address, body, options)).json();

/** How far the server is with the requests of a page; empty where it does not say. @param {string} visitor */
export async function stageOf(visitor) {
  const answer = /** @type {{ stage?: string } | null} */ (
    await json("/api/visitor/stage", { visitor }).catch(() => null)
  );
  return answer?.stage ?? "";
}

/** The sentence of whatever was thrown. @param {unknown} error */
export const messageOf = (error) => (error instanceof Error ? error.message : String(error));

/** The lines of an answer as they come, each a value of JSON. @param {Response} answer */
export async function* messages(answer) {
  if (!answer.body) return;
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const found = (rest + value).split("\n");
    rest = found.pop() ?? "";
    for (const line of found.filter(Boolean)) yield/** @type {unknown} */ (JSON.parse(line));
  }
}

/** The body of a request for a part, its fields in one order. @param {object} part */
export const bodyOf = (part) => JSON.stringify(part, Object.keys(part).sort());

/** The query of an address, without what is empty. @param {Record<string, string>} query */
export function search(query) {
  /** @param {string} value */
  const plain = (value) => encodeURIComponent(value).replace(/%3A/g, ":").replace(/%2C/g, ",");
  const given = Object.entries(query).filter(([, value]) => value !== "");
  return given.length ? `?${given.map(([key, value]) => `${key}=${plain(value)}`).join("&")}` : "";
}
