// A bar with the stage of a request to the model, while the page waits for the answer.

import { element } from "../dom.mjs";
import { stageOf } from "../http.mjs";

const EVERY = 500; // milliseconds between two looks at the stage

/**
 * Show in `holder` how far the server is until the answer is there; returns the answer.
 * @template T
 * @param {HTMLElement} holder @param {string} visitor whose requests the stage is of @param {string} text at first
 * @param {Promise<T>} answer
 */
export async function waiting(holder, visitor, text, answer) {
  const bar = element("progress", { "aria-label": text }),
    words = element("span", { class: "wb-quiet" }, text);
  holder.replaceChildren(element("div", { class: "wb-graph-waiting" }, bar, words));
  const clock = setInterval(async () => {
    const stage = await stageOf(visitor);
    if (!stage) return;
    words.textContent = stage;
    const [, done, all] = stage.match(/(\d+) of (\d+)$/) ?? [];
    if (all) Object.assign(bar, { max: Number(all), value: Number(done) });
    else bar.removeAttribute("value");
  }, EVERY);
  try {
    return await answer;
  } finally {
    clearInterval(clock);
  }
}
