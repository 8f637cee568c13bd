// One conversation, unsteered, steered and steered at random: messages, and replies as they are written.

import { none } from "../dash.mjs";
import { byId, element, menu, short, signed, visible } from "../dom.mjs";
import { fieldsOf, helpOf, inputOf, labelled, sliderOf } from "../form.mjs";
import { messageOf, messages, request } from "../http.mjs";

const CHATS = ["unsteered", "steered", "random direction"];
const FULL = 3; // nats of the full colour
const FULL_SCORE = 8; // log-odds above the threshold of a monitor

/** Called once the panel is on the page. @param {SayState | null} given */
export function begin(given) {
  if (given && document.getElementById("say")) panel(byId("say"), given);
  return none();
}

/** @param {HTMLElement} holder @param {SayState} given */
function panel(holder, given) {
  const { strength, system, ...fields } = fieldsOf(holder).say;
  /** @type {ChatTurn[]} */
  let turns = [];
  /** @type {AbortController | null} */
  let writing = null;
  const inputs = Object.fromEntries(
    Object.entries(fields).map(([key, field]) => [key, inputOf(field, { id: `say-${key}` })]),
  );
  const range = sliderOf(strength, { id: "say-strength", class: "wb-range", oninput: tellStrength });
  const told = element("span", { class: "wb-quiet" });
  const monitors = [["", "No monitor"], ...given.monitors.map((each) => [each, `Monitor: ${visible(each, 60)}`])];
  const monitor = menu("Monitor", monitors, "", undefined, { id: "say-monitor", hidden: !given.monitors.length });
  const setting = element("textarea", { class: "wb-native", rows: 2, id: "say-system", "aria-label": system.title });
  const log = element("div", { class: "wb-say-log", id: "say-log", role: "log", "aria-label": "Conversation" });
  const said = element("p", { class: "wb-note", id: "say-status", role: "status" });
  const message = element("textarea", {
    ...{ class: "wb-native", id: "say-message", rows: 2, "aria-label": "Message", onkeydown: typed },
    placeholder: "A message",
    title: "Enter sends, Shift Enter begins a line, Escape stops the replies",
  });
  const send = button("Send", say, "say-send", "wb-act");
  const stop = button("Stop", () => writing?.abort(), "say-stop");

  holder.replaceChildren(
    element("div", { class: "wb-controls" }, labelled(strength, range), told, monitor),
    legend(),
    log,
    said,
    element("div", { class: "wb-say-write" }, message, send, stop, button("New", renew, "say-new")),
    element(
      "div",
      { class: "wb-controls wb-form wb-say-more" },
      ...Object.entries(fields).map(([key, field]) => labelled(field, inputs[key])),
      helpOf({ strength, ...fields, system }),
      element("details", {}, element("summary", { title: system.help }, system.title), setting),
    ),
  );
  tellStrength();
  busy(false);

  /** @param {string} text @param {() => unknown} onclick @param {string} id @param {string} [kind] */
  function button(text, onclick, id, kind = "wb-button") {
    return element("button", { type: "button", class: kind, id, onclick }, text);
  }

  function tellStrength() {
    told.textContent = `× ${short(Number(range.value))} along ${visible(given.direction, 60)}`;
  }

  /** @param {KeyboardEvent} event */
  function typed(event) {
    if (event.key === "Escape") writing?.abort();
    if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    if (!event.ctrlKey && !event.metaKey) say();
  }

  async function say() {
    if (writing) return;
    const mine = new AbortController();
    writing = mine;
    /** @type {ChatTurn} */
    const turn = { message: message.value, strength: Number(range.value), replies: {} };
    const shown = drawn(turn);
    const asked = {
      ...Object.fromEntries(Object.entries(inputs).map(([key, input]) => [key, Number(input.value)])),
      ...{ direction: given.direction, visitor: given.visitor, system: setting.value, monitor: monitor.value },
      ...{ strength: turn.strength, message: turn.message },
      turns: turns.map((each) => ({ message: each.message, replies: textsOf(each) })),
    };
    message.value = "";
    busy(true);
    try {
      for await (const line of messages(await request("/api/act/say", asked, { signal: mine.signal }))) {
        if (!holder.isConnected) mine.abort();
        const step = /** @type {ChatLine} */ (line);
        if (step.error) throw new Error(step.error);
        if (!shown.item.isConnected) log.append(shown.item);
        step.said.forEach((token, at) => {
          shown.texts[at].append(token ?? "");
        });
        turn.replies = step.replies;
      }
      turns.push(turn);
      shown.item.replaceWith(drawn(turn).item);
      said.textContent = "";
    } catch (error) {
      shown.item.remove();
      message.value ||= turn.message;
      said.textContent = mine.signal.aborted ? "Stopped." : messageOf(error);
    }
    writing = null;
    busy(false);
  }

  /** @param {boolean} on */
  function busy(on) {
    if (on) said.textContent = "writing …";
    send.disabled = on;
    stop.hidden = !on;
  }

  function renew() {
    writing?.abort();
    turns = [];
    log.replaceChildren();
    message.focus();
  }
}

/** The texts of the replies by chat. @param {ChatTurn} turn */
const textsOf = (turn) => Object.fromEntries(Object.entries(turn.replies).map(([chat, reply]) => [chat, reply.text]));

function legend() {
  const swatch = (/** @type {string} */ kind, /** @type {string} */ text) =>
    element("span", {}, element("span", { class: `wb-mark ${kind}`, style: { "--a": 0.6 } }, "  "), ` ${text}`);
  return element(
    "p",
    { class: "wb-note wb-say-legend" },
    "Colour of a token: its probability was ",
    swatch("", "raised by steering"),
    swatch("wb-lowered", "lowered"),
    ` (full from ${FULL} nats of log-probability); with a monitor, its score above the threshold`,
  );
}

/** A message, and a column for every chat: plain while it is written, then with its colours. @param {ChatTurn} turn */
function drawn(turn) {
  const texts = CHATS.map((chat) => {
    const tokens = (turn.replies[chat]?.tokens ?? []).map((_, at) => coloured(turn.replies[chat], at));
    return element("p", { class: "wb-say-text wb-tokens", dir: "auto" }, ...tokens);
  });
  const columns = CHATS.map((chat, at) => {
    const facts = element("span", { class: "wb-quiet" }, factsOf(turn.replies[chat]));
    return element("div", { "data-chat": chat }, element("h3", {}, chat, facts), texts[at]);
  });
  const item = element(
    "div",
    { class: "wb-say-turn" },
    element("p", { class: "wb-say-message", dir: "auto" }, turn.message),
    element("p", { class: "wb-quiet" }, `strength ${short(turn.strength)}`),
    element("div", { class: "wb-say-replies", style: { "--n": CHATS.length } }, ...columns),
  );
  return { item, texts };
}

/** @param {ChatReply | undefined} reply */
function factsOf(reply) {
  if (!reply?.tokens.length) return "";
  const facts = reply.shift ? [`mean shift ${short(Number(reply.shift.toFixed(2)))} nats a token`] : [];
  if (reply.scores.length) {
    const mean = reply.scores.reduce((sum, score) => sum + score, 0) / reply.scores.length;
    facts.push(`monitor ${mean > 0 ? "fires" : "silent"}, mean score ${signed(Number(mean.toFixed(2)))}`);
  }
  return [...facts, ...(reply.cut ? ["cut"] : [])].join(", ");
}

/** A token with the colour of its shift, or of its score under a monitor, none below the threshold. @param {ChatReply} reply @param {number} at */
function coloured(reply, at) {
  const [token, shift] = reply.tokens[at];
  const score = reply.scores.at(at);
  if (score === undefined && !reply.shift) return element("span", {}, token);
  const size = score === undefined ? Math.abs(shift) / FULL : Math.max(0, score) / FULL_SCORE;
  const told =
    score === undefined
      ? `shift ${signed(Number(shift.toFixed(2)))} nats`
      : `score ${signed(Number(score.toFixed(2)))}`;
  return element(
    "span",
    {
      ...{ class: `wb-mark${score === undefined && shift < 0 ? " wb-lowered" : ""}`, "data-tip": told, role: "note" },
      ...{ tabindex: at ? -1 : 0, "aria-label": `${token}, ${told}` },
      style: { "--a": size < 0.03 ? 0 : (0.12 + 0.5 * Math.min(1, size)).toFixed(3) },
    },
    token,
  );
}
