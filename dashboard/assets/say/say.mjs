// Chats side by side, steered and not: sliders, messages, replies as they are written, and the conversation as a file.

import { none } from "../dash.mjs";
import { byId, element, short, signed, visible } from "../dom.mjs";
import { defaultsOf, fieldsOf, helpOf, inputOf, labelled } from "../form.mjs";
import { json, messageOf, messages, request } from "../http.mjs";

const STEERED = ["steered", "random direction"];
const FULL = 3; // nats of the full colour
const FULL_SCORE = 8; // log-odds above the threshold of a monitor

/** Called once the panel is on the page. @param {SayState | null} given */
export function begin(given) {
  if (given && document.getElementById("say")) panel(byId("say"), given);
  return none();
}

/** @param {HTMLElement} holder @param {SayState} given */
function panel(holder, given) {
  const fields = fieldsOf(holder).conversation;
  const {
    random,
    n_new: count,
    temperature,
    seed,
  } = Object.fromEntries(Object.entries(fields).map(([key, field]) => [key, inputOf(field, { id: `say-${key}` })]));
  /** @type {Conversation} */
  let talk = {
    ...{ name: given.direction, steps: [], model: "", weight_hash: "" },
    ...{ names: [], strengths: [], turns: [], .../** @type {Defaults} */ (defaultsOf(fields)) },
  };
  /** @type {AbortController | null} */
  let writing = null;
  /** @type {Record<string, SteeredDirection>} */
  const known = {};
  const sliders = element("ul", { class: "wb-say-sliders", id: "say-sliders" });
  const more = element("select", {
    class: "wb-native",
    id: "say-more",
    "aria-label": "Add a direction",
    onchange: add,
  });
  const watch = element("select", { class: "wb-native", id: "say-monitor", "aria-label": "Monitor" });
  const monitors = given.monitors.map((each) => element("option", { value: each }, `Monitor: ${visible(each, 60)}`));
  watch.append(element("option", { value: "" }, "No monitor"), ...monitors);
  watch.hidden = !monitors.length;
  const log = element("div", { class: "wb-say-log", id: "say-log", role: "log", "aria-label": "Conversation" });
  const said = element("p", { class: "wb-note", id: "say-status", role: "status" });
  const layout = element("p", { class: "wb-note", id: "say-layout" });
  const message = element("textarea", {
    ...{ class: "wb-native", id: "say-message", rows: 2, "aria-label": "Message", onkeydown: typed, onfocus: ready },
    placeholder: "A message",
    title: "Enter sends, Shift Enter begins a line, Escape stops the replies",
  });
  const system = element("textarea", {
    class: "wb-native",
    rows: 2,
    id: "say-system",
    "aria-label": fields.system.title,
  });
  const send = button("Send", () => say(), "say-send", "wb-act");
  const stop = button("Stop", () => writing?.abort(), "say-stop");
  const name = element("input", { class: "wb-native", id: "say-name", "aria-label": "Name", placeholder: "name" });
  const kept = element("select", { class: "wb-native", id: "say-kept", "aria-label": "Open one that was kept" });
  kept.addEventListener("change", () => openKept(kept.value));
  const file = element("input", { type: "file", accept: ".json", hidden: true, id: "say-file", onchange: openFile });

  holder.replaceChildren(
    element("div", { class: "wb-controls" }, sliders, more, watch),
    legend(),
    layout,
    log,
    said,
    element("div", { class: "wb-say-write" }, message, send, stop),
    element(
      "div",
      { class: "wb-controls wb-form wb-say-more" },
      labelled(fields.random, random),
      labelled(fields.n_new, count),
      labelled(fields.temperature, temperature),
      labelled(fields.seed, seed),
      helpOf(fields),
      element("details", {}, element("summary", { title: fields.system.help }, fields.system.title), system),
    ),
    element(
      "div",
      { class: "wb-controls wb-say-more" },
      button("New", renew, "say-new"),
      name,
      button("Keep", keep, "say-keep"),
      kept,
      button("Download", download, "say-download"),
      button("Open a file", () => file.click(), "say-open"),
      file,
    ),
  );
  show();
  listKept();
  if (given.kept) openKept(given.kept);
  else addNamed(given.direction);

  /** @param {string} text @param {() => unknown} onclick @param {string} id @param {string} [kind] */
  function button(text, onclick, id, kind = "wb-button") {
    return element("button", { type: "button", class: kind, id, onclick }, text);
  }

  /** @param {() => Promise<unknown>} act */
  async function safely(act) {
    try {
      said.classList.remove("wb-note-failed");
      return await act();
    } catch (error) {
      said.classList.add("wb-note-failed");
      said.textContent = messageOf(error);
    }
  }

  // What the fields say, and the other way round.
  function read() {
    talk = {
      ...talk,
      ...{
        random: random.checked,
        system: system.value,
        n_new: Number(count.value),
        temperature: Number(temperature.value),
      },
      seed: Number(seed.value),
    };
    return talk;
  }

  function show() {
    random.checked = talk.random;
    system.value = talk.system;
    count.value = String(talk.n_new);
    temperature.value = String(talk.temperature);
    seed.value = String(talk.seed);
    sliders.replaceChildren(...talk.names.map((_, at) => slider(at)));
    const others = given.directions.filter((each) => !talk.names.includes(each));
    const choices = others.map((each) => element("option", { value: each }, visible(each, 60)));
    more.replaceChildren(element("option", { value: "" }, "Add a direction"), ...choices);
    more.hidden = !others.length;
    log.replaceChildren(...talk.turns.map((turn) => drawn(turn).item));
    busy(false);
  }

  /** @param {number} at */
  function slider(at) {
    const step = talk.steps[at],
      direction = talk.names[at],
      strength = () => talk.strengths[at];
    const furthest = Math.max(known[direction]?.furthest ?? 3, Math.abs(strength()));
    const how = { min: step.action === "ablate" ? 0 : -furthest, max: furthest, step: furthest / 60 };
    const range = element("input", { type: "range", class: "wb-range", ...how, value: strength() });
    const number = element("input", { type: "number", class: "wb-native", step: "any", value: strength() });
    range.setAttribute("aria-label", `Strength of ${direction}`);
    number.setAttribute("aria-label", `Strength of ${direction}, as a number`);
    const length = element("span", { class: "wb-quiet" });
    /** @param {string} value */
    const set = (value) => {
      talk.strengths[at] = Number(value) || 0;
      length.textContent =
        step.action === "ablate"
          ? `ablated after every block${talk.strengths[at] ? "" : ": off"}`
          : `× ${short(step.amount)}: ${step.action} ${short(step.amount * talk.strengths[at])} at ${step.target.hook_point}`;
    };
    range.addEventListener("input", () => {
      number.value = String(Number(Number(range.value).toPrecision(3)));
      set(number.value);
    });
    number.addEventListener("input", () => {
      range.value = number.value;
      set(number.value);
    });
    set(String(strength()));
    const remove = button("Remove", () => drop(at), `say-drop-${at}`, "wb-link");
    remove.setAttribute("aria-label", `Remove ${direction}`);
    const title = element("strong", { dir: "auto" }, visible(direction, 60));
    return element("li", {}, title, range, number, length, remove);
  }

  /** @param {number} at */
  function drop(at) {
    read();
    for (const list of [talk.steps, talk.names, talk.strengths]) list.splice(at, 1);
    show();
  }

  function add() {
    if (more.value) addNamed(more.value);
  }

  /** @param {string} wanted */
  function addNamed(wanted) {
    return safely(async () => {
      const address = `/api/chat/direction?name=${encodeURIComponent(wanted)}`;
      const found = /** @type {SteeredDirection} */ (await json(address));
      known[wanted] = found;
      read();
      Object.assign(talk, { model: found.model, weight_hash: found.weight_hash });
      talk.steps.push(found.step);
      talk.names.push(wanted);
      talk.strengths.push(found.chosen ? 1 : found.furthest / 10);
      show();
    });
  }

  /** @param {KeyboardEvent} event */
  function typed(event) {
    if (event.key === "Escape") writing?.abort();
    if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    if (!event.ctrlKey && !event.metaKey && !writing) say();
  }

  let asked = "";
  // The model is loaded while the message is typed, and says how it is spoken to.
  function ready() {
    if (!talk.names.length || asked === talk.weight_hash) return;
    asked = talk.weight_hash;
    safely(async () => {
      try {
        told(/** @type {CheckedChat} */ (await json("/api/chat/check", { conversation: read() })));
      } catch (error) {
        asked = "";
        throw error;
      }
    });
  }

  /** @param {CheckedChat} found */
  function told(found) {
    layout.textContent = found.template
      ? `${talk.model} has a chat template; its context has ${short(found.context)} tokens.`
      : `${talk.model} has no chat template: lines begin with “User:” and “Assistant:”, and a ` +
        `reply ends at the next line of the user. Its context has ${short(found.context)} tokens.`;
  }

  async function say() {
    const text = message.value;
    if (writing) return;
    if (!text.trim() || !talk.names.length) {
      const what = talk.names.length ? "The message is empty; type one." : "Add a direction to steer along first.";
      return safely(() => Promise.reject(new Error(what)));
    }
    const mine = new AbortController();
    writing = mine;
    read();
    const strengths = Object.fromEntries(talk.names.map((each, at) => [each, talk.strengths[at]]));
    const names = ["unsteered", ...STEERED.slice(0, talk.random ? 2 : 1)];
    const empty = () => ({ text: "", tokens: [], cut: true, scores: [] });
    /** @type {ChatTurn} */
    const turn = { message: text, strengths, replies: Object.fromEntries(names.map((each) => [each, empty()])) };
    const shown = drawn(turn, Boolean(watch.value));
    log.append(shown.item);
    message.value = "";
    busy(true);
    said.textContent = "reading the message …";
    const ended = await safely(async () => {
      const body = { conversation: talk, message: text, monitor: watch.value, visitor: given.visitor };
      for await (const line of messages(await request("/api/act/answer_chats", body, { signal: mine.signal }))) {
        if (!holder.isConnected) mine.abort();
        const step = /** @type {ChatLine} */ (line);
        if (step.error) throw new Error(step.error);
        if (!step.said.length) {
          turn.replies = step.replies;
          return true;
        }
        step.said.forEach((token, at) => {
          const score = step.scores[at]; // of the token before
          const reply = turn.replies[names[at]];
          if (score != null) {
            reply.scores?.push(score);
            shown.score(names[at], reply.tokens.length - 1, score);
          }
          if (!token) return;
          turn.replies[names[at]].tokens.push(token);
          shown.add(names[at], token);
        });
        said.textContent = `token ${Math.max(...names.map((each) => turn.replies[each].tokens.length))}`;
      }
      return true;
    });
    writing = null;
    finish(turn, shown.item, mine.signal.aborted, Boolean(ended));
  }

  /** Keep what was said, also of replies that were stopped; after an error the message comes back. @param {ChatTurn} turn @param {HTMLElement} item @param {boolean} stopped @param {boolean} ended */
  function finish(turn, item, stopped, ended) {
    const some = Object.values(turn.replies).some((each) => each.tokens.length);
    if (stopped) said.classList.remove("wb-note-failed");
    if (stopped)
      for (const each of Object.values(turn.replies)) each.text = each.tokens.map(([token]) => token).join("");
    if (ended || (stopped && some)) {
      talk.turns.push(turn);
      item.replaceWith(drawn(turn).item);
      said.textContent = stopped ? "Stopped." : "";
    } else {
      item.remove();
      message.value ||= turn.message;
      if (stopped) said.textContent = "Stopped.";
    }
    busy(false);
  }

  /** @param {boolean} on */
  function busy(on) {
    send.disabled = on;
    stop.hidden = !on;
  }

  /** A message, and a column for every reply: its colours are a monitor's scores, or shifts. @param {ChatTurn} turn @param {boolean} [watched] */
  function drawn(turn, watched = Object.values(turn.replies).some((each) => each.scores?.length)) {
    const how = Object.entries(turn.strengths).map(([direction, strength]) => `${direction} × ${short(strength)}`);
    const columns = element("div", { class: "wb-say-replies", style: { "--n": Object.keys(turn.replies).length } });
    /** @type {Record<string, HTMLElement>} */
    const texts = {};
    for (const [chat, reply] of Object.entries(turn.replies)) {
      texts[chat] = element("p", { class: "wb-say-text wb-tokens", dir: "auto" });
      const facts = element("span", { class: "wb-quiet" }, factsOf(chat, reply));
      columns.append(element("div", { "data-chat": chat }, element("h3", {}, chat, facts), texts[chat]));
      for (const token of reply.tokens) put(texts[chat], watched ? "" : chat, token);
      reply.scores?.forEach((score, at) => {
        mark(texts[chat], at, score);
      });
    }
    const item = element(
      "div",
      { class: "wb-say-turn" },
      element("p", { class: "wb-say-message", dir: "auto" }, turn.message),
      element("p", { class: "wb-quiet" }, how.join(" · ")),
      columns,
    );
    return {
      item,
      add: (/** @type {string} */ chat, /** @type {MovedToken} */ token) =>
        put(texts[chat], watched ? "" : chat, token),
      score: (/** @type {string} */ chat, /** @type {number} */ at, /** @type {number} */ score) =>
        mark(texts[chat], at, score),
    };
  }

  /** @param {string} wanted */
  function openKept(wanted) {
    return safely(async () => {
      if (!wanted) return;
      take(
        await json("/api/chat/check", {
          conversation: await json(`/api/chat/kept?name=${encodeURIComponent(wanted)}`),
        }),
      );
      name.value = wanted;
    });
  }

  function openFile() {
    const [chosen] = file.files ?? [];
    file.value = "";
    safely(async () => {
      if (!chosen) return;
      /** @type {unknown} */
      let conversation;
      try {
        conversation = JSON.parse(await chosen.text());
      } catch {
        throw new Error(`${chosen.name} is not a conversation: it cannot be read as JSON.`);
      }
      take(await json("/api/chat/open", { conversation }));
    });
  }

  /** @param {unknown} answer */
  function take(answer) {
    const found = /** @type {CheckedChat} */ (answer);
    writing?.abort();
    talk = found.conversation;
    asked = talk.weight_hash;
    show();
    told(found);
    said.textContent = "";
  }

  function renew() {
    writing?.abort();
    talk = { ...read(), turns: [] };
    show();
    message.focus();
  }

  function keep() {
    return safely(async () => {
      await json("/api/chat/keep", { name: name.value.trim(), conversation: read() });
      said.textContent = `Kept as “${name.value.trim()}” among the notes of the workspace.`;
      await listKept();
    });
  }

  async function listKept() {
    const found = /** @type {{ names: string[] }} */ (await json("/api/chat/kept"));
    const choices = found.names.map((each) => element("option", { value: each }, visible(each, 60)));
    kept.replaceChildren(element("option", { value: "" }, "Kept conversations"), ...choices);
    kept.hidden = !choices.length;
  }

  function download() {
    return safely(async () => {
      const whole = JSON.stringify(await json("/api/chat/file", { conversation: read() })); // with the vectors
      const address = URL.createObjectURL(new Blob([whole], { type: "application/json" }));
      const link = element("a", { href: address, download: `${name.value.trim() || talk.name}-chat.json` });
      link.click();
      setTimeout(() => URL.revokeObjectURL(address), 1000);
    });
  }
}

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

/** @param {string} chat @param {ChatReply} reply */
function factsOf(chat, reply) {
  const n = reply.tokens.length,
    size = reply.tokens.reduce((sum, [, shift]) => sum + Math.abs(shift), 0) / n;
  const facts = STEERED.includes(chat) && n ? [`mean shift ${short(Number(size.toFixed(2)))} nats a token`] : [];
  const scores = reply.scores ?? [];
  if (scores.length) {
    const mean = scores.reduce((sum, score) => sum + score, 0) / scores.length;
    facts.push(`monitor ${mean > 0 ? "fires" : "silent"}, mean score ${signed(Number(mean.toFixed(2)))}`);
  }
  return [...facts, ...(reply.cut && n ? ["cut"] : [])].join(", ");
}

/** @param {HTMLElement} text @param {string} chat @param {MovedToken} token */
function put(text, chat, [token, shift]) {
  if (!STEERED.includes(chat)) return text.append(element("span", {}, token));
  const size = Math.abs(shift),
    told = `${signed(Number(shift.toFixed(2)))} nats`;
  const span = element(
    "span",
    {
      ...{ class: `wb-mark${shift < 0 ? " wb-lowered" : ""}`, "data-tip": told, role: "note" },
      ...{ tabindex: text.childElementCount ? -1 : 0, "aria-label": `${token}, shift ${told}` },
      style: { "--a": size < 0.1 ? 0 : (0.12 + 0.5 * Math.min(1, size / FULL)).toFixed(3) },
    },
    token,
  );
  text.append(span);
}

/** Colour a token by its score under a monitor: none below the threshold. @param {HTMLElement} text @param {number} at @param {number} score */
function mark(text, at, score) {
  const span = text.children[at];
  if (!(span instanceof HTMLElement)) return;
  const told = `score ${signed(Number(score.toFixed(2)))}`;
  span.className = "wb-mark";
  span.style.setProperty("--a", score <= 0 ? "0" : (0.12 + 0.5 * Math.min(1, score / FULL_SCORE)).toFixed(3));
  span.dataset.tip = told;
  span.role = "note";
  span.tabIndex = at ? -1 : 0;
  span.ariaLabel = `${span.textContent}, ${told}`;
}
