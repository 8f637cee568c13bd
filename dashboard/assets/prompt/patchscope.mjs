// What the model writes about the chosen activation when it is set into another prompt, beside its controls.

import { byId, element, visible } from "../dom.mjs";
import { fieldsOf, helpOf, inputOf, labelled } from "../form.mjs";
import { aborted, ask, failed, spaced } from "./draw.mjs";

/** @type {AbortController | null} */
let wanted = null; // the answer on its way; another choice drops it

/** @param {PromptState} state */
export function patchscope(state) {
  const { patchscope: asked } = fieldsOf(byId("prompt-views"));
  const target = inputOf(asked.target, { id: "prompt-patchscope-target", style: { width: "30rem", maxWidth: "100%" } });
  const go = element("button", { type: "button", class: "wb-button", id: "prompt-patchscope-go" });
  const said = element("p", { class: "wb-note", id: "prompt-patchscope-said", "aria-live": "polite" });
  const lines = element("div", {});
  byId("prompt-patchscope").replaceChildren(
    element("div", { class: "wb-controls wb-form" }, labelled(asked.target, target), go, helpOf(asked)),
    said,
    lines,
  );
  go.addEventListener("click", run);

  async function run() {
    wanted?.abort();
    const mine = new AbortController();
    wanted = mine;
    go.disabled = true;
    said.textContent = "writing …";
    lines.replaceChildren();
    const { token, layer } = state.selection;
    try {
      const body = { ...state.asking(), after: token, layer, target: target.value };
      const found = await ask("patchscope", body, mine.signal);
      if (found && wanted === mine) show(found);
    } catch (error) {
      if (!aborted(error)) said.replaceChildren(failed(error));
    }
    if (wanted === mine) go.disabled = false;
  }

  /** @param {PatchscopeAnswer} found */
  function show(found) {
    const rows = [
      [found.judged === true ? "reading" : "activation", found.reading],
      [`another position, ${spaced(found.other, 16)}`, found.shuffled],
      ["no activation", found.empty],
      ["the word alone", found.prompt],
    ].map(([name, text]) =>
      element(
        "li",
        {},
        element("span", { class: "wb-quiet" }, name),
        element("span", { dir: "auto" }, visible(text, 200)),
      ),
    );
    const list = element("ol", { class: "wb-arms" }, ...rows);
    const same = [found.shuffled, found.empty, found.prompt].includes(found.reading)
      ? " Here a control says the same."
      : "";
    said.textContent =
      (found.said || "Not judged for this model and layer: run `workbench readings`. Until then it is no reading.") +
      same;
    lines.replaceChildren(
      found.judged === true
        ? list
        : element("details", {}, element("summary", {}, "Texts with the activation and without"), list),
    );
  }

  function select() {
    wanted?.abort();
    go.disabled = false;
    go.textContent = `Write about ${spaced(state.reading.tokens[state.selection.token], 16)} after layer ${state.selection.layer}`;
    said.textContent = "";
    lines.replaceChildren();
  }
  return { select };
}
