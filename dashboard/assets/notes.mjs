// Stars, names, notes, lists and recipes of what a page shows, drawn into every `[data-note-thing]`; the buttons of the
// page *Notes*. What is typed into a note lives in sessionStorage until it is saved, so that it survives navigation, the
// switch of the theme and a reload. Texts are set as text, never as HTML.

import { setProps } from "./dash.mjs";
import { all, element, menu, under, whenChanged } from "./dom.mjs";
import { json, messageOf, Refusal } from "./http.mjs";

const DRAFT = "workbench-note-draft:";

/** @typedef {{ title: string, note: string, starred: boolean, tags: string[], lists: string[] }} Noted */
/** @typedef {Record<"title" | "note" | "tags", string>} Draft */

/** Write by a route; once more where the server has a new key since the page was made. @param {string} act @param {object} body */
async function write(act, body) {
  try {
    return await json(`/api/notes/${act}`, body);
  } catch (error) {
    if (error instanceof Refusal && error.status === 403) return await json(`/api/notes/${act}`, body);
    throw error;
  }
}

/** @param {string} key @returns {Draft | null} */
function drafted(key) {
  try {
    return JSON.parse(sessionStorage.getItem(DRAFT + key) ?? "null");
  } catch {
    return null;
  }
}

/** @param {string} key @param {Draft | null} draft */
function keepDraft(key, draft) {
  try {
    if (draft) sessionStorage.setItem(DRAFT + key, JSON.stringify(draft));
    else sessionStorage.removeItem(DRAFT + key);
  } catch {
    /* no storage in this window: a draft lasts as long as its page */
  }
}

/** @param {string} text @param {Attributes} [properties] */
const button = (text, properties) => element("button", { type: "button", class: "wb-link", ...properties }, text);

/** @param {string} label @param {HTMLElement} input */
const field = (label, input) => element("label", {}, element("span", { class: "wb-quiet" }, label), input);

/** Names between commas. @param {string} text */
const split = (text) =>
  text
    .split(",")
    .map((each) => each.trim())
    .filter(Boolean);

// One thing: its star, name and note, and the forms behind "Note" and "Recipe".
class Controls {
  /** @param {HTMLElement} root @param {string} key */
  constructor(root, key) {
    this.root = root;
    this.key = key;
    /** @type {Noted} */
    this.state = { title: "", note: "", starred: false, tags: [], lists: [] };
    /** @type {HTMLFormElement | null} */
    this.form = null;
    this.star = button("☆", { class: "wb-star", title: "Star (s)", onclick: () => this.flip() });
    this.title = element("span", { class: "wb-note-title", dir: "auto" });
    this.edit = button("Note", { title: "Name, note and lists", onclick: () => this.open() });
    this.text = element("p", { class: "wb-note-text", dir: "auto", hidden: true });
    this.status = element("span", { class: "wb-quiet", role: "status" });
    const tip = "Save an intervention on this feature under a name";
    const recipe = /^features\/[^#]+#\d+$/.test(key)
      ? button("Recipe", { title: tip, onclick: () => this.openRecipe() })
      : null;
    root.replaceChildren(
      element("div", { class: "wb-note-line" }, this.star, this.title, this.edit, recipe, this.status),
      this.text,
    );
  }

  /** @param {string | undefined} given */
  async load(given) {
    try {
      const found = given ? JSON.parse(given) : await json(`/api/notes?key=${encodeURIComponent(this.key)}`);
      if (this.root.dataset.noteDrawn === this.key) this.show(found); // else the page went on to another thing
    } catch (error) {
      return this.say(messageOf(error), true);
    }
    if (drafted(this.key)) this.open();
  }

  /** @param {Partial<Noted>} state */
  show(state) {
    this.state = { ...this.state, ...state };
    const { title, note, starred, tags } = this.state;
    this.star.textContent = starred ? "★" : "☆";
    this.star.setAttribute("aria-pressed", String(starred));
    this.star.setAttribute("aria-label", `Star ${title || this.key}`);
    this.edit.setAttribute("aria-label", `Note on ${title || this.key}`);
    this.title.textContent = [title, tags.length ? `in ${tags.join(", ")}` : ""].filter(Boolean).join(" · ");
    this.text.textContent = note;
    this.text.hidden = !note || Boolean(this.form);
  }

  /** @param {string} message @param {boolean} [failed] */
  say(message, failed = false) {
    this.status.classList.toggle("wb-note-failed", failed);
    this.status.textContent = message;
  }

  /** Write by a route; false where that failed, which is said. @param {string} act @param {object} body @param {string} said */
  async save(act, body, said) {
    try {
      const found = await write(act, body);
      if (act === "set") this.show(/** @type {Noted} */ (found));
      this.say(said);
      return true;
    } catch (error) {
      this.say(messageOf(error), true);
      return false;
    }
  }

  flip() {
    const starred = !this.state.starred;
    return this.save("set", { key: this.key, starred }, starred ? "Starred" : "Star removed");
  }

  /**
   * Open a form, in place of another one; at its end the draft of that key is forgotten.
   * @param {string} draft @param {() => Promise<boolean>} submit says whether it is done @param {...HTMLElement} fields
   */
  openForm(draft, submit, ...fields) {
    this.close();
    const end = () => {
      keepDraft(draft, null);
      this.close();
      this.edit.focus();
    };
    const save = element("button", { type: "submit", class: "wb-note-save" }, "Save");
    const form = element("form", { class: "wb-note-form" }, ...fields);
    const cancel = button("Cancel", { onclick: end });
    form.append(element("div", { class: "wb-controls" }, save, cancel));
    form.addEventListener("submit", async (event) => {
      event.preventDefault();
      if (await submit()) end();
    });
    form.addEventListener("keydown", (event) => {
      if (event.key !== "Enter" || !(event.ctrlKey || event.metaKey)) return;
      event.stopPropagation();
      form.requestSubmit();
    });
    this.form = form;
    this.root.append(form);
    this.show({});
    return form;
  }

  close() {
    this.form?.remove();
    this.form = null;
    this.show({});
  }

  open() {
    const { title, note, tags, lists } = this.state;
    const before = { title, note, tags: tags.join(", ") };
    const now = drafted(this.key) ?? before;
    const inputs = {
      title: element("input", { type: "text", maxLength: 200, value: now.title }),
      note: element("textarea", { rows: 4, maxLength: 20000, value: now.note }),
      tags: element("input", { type: "text", value: now.tags, placeholder: lists.slice(0, 5).join(", ") }),
    };
    const typed = () => ({ title: inputs.title.value, note: inputs.note.value, tags: inputs.tags.value });
    const submit = async () => {
      const { title, note, tags } = typed(); // only what was changed, so that other texts of others stay
      const body = {
        ...{ key: this.key, title: title === before.title ? undefined : title },
        ...{ note: note === before.note ? undefined : note, tags: tags === before.tags ? undefined : split(tags) },
      };
      if (!(await this.save("set", body, "Saved"))) return false;
      if (document.getElementById("feature-grid")) {
        // the list of features shows the name too
        window.dash_ag_grid.getApiAsync("feature-grid").then((grid) => grid.refreshInfiniteCache());
      }
      return true;
    };
    const form = this.openForm(
      this.key,
      submit,
      field("Name for display", inputs.title),
      field("Note", inputs.note),
      field("Lists, a comma between them", inputs.tags),
    );
    form.addEventListener("input", () => keepDraft(this.key, typed()));
    inputs.note.focus();
  }

  openRecipe() {
    const [dictionary, feature] = this.key.split("#");
    const largest = Number(this.root.dataset.noteLargest);
    const name = element("input", { type: "text", required: true, maxLength: 80 });
    const actions = ["add", "scale", "set", "ablate"].map((each) => [each, each]);
    const action = menu("Action on the feature", actions, "add", undefined, { class: undefined });
    const amount = element("input", { type: "number", step: "any", value: "1" });
    const prompt = element("textarea", { rows: 2 });
    const submit = () => {
      const unit = largest && ["add", "set"].includes(action.value) ? largest : 1;
      const step = {
        ...{ target: { dictionary, index: Number(feature) }, action: action.value },
        amount: unit * Number(amount.value),
      };
      const recipe = { name: name.value.trim(), steps: [step], prompt: prompt.value };
      return this.save("recipe", { recipe }, `Saved as “${recipe.name}”`);
    };
    const unit = largest ? `Amount, × its maximum ${largest.toPrecision(3)}; or the factor` : "Amount, an activation";
    this.openForm(
      "",
      submit,
      field("Name of the recipe", name),
      field("Action on the feature", action),
      field(unit, amount),
      field("Prompt it was tried on", prompt),
    );
    name.focus();
  }
}

// The page Notes: a list or a recipe is deleted.
document.addEventListener("click", async (event) => {
  const target = under(event, "[data-note-delete]");
  if (!target) return;
  const { noteDelete: kind, noteName: name } = target.dataset;
  if (!confirm(`Delete the ${kind} ${name}?`)) return;
  try {
    await write("delete", { kind, name });
    setProps("notes-state", { data: Date.now() });
  } catch (error) {
    alert(messageOf(error));
  }
});

function draw() {
  all("[data-note-thing]").forEach((root) => {
    const key = root.dataset.noteThing ?? "";
    if (root.dataset.noteDrawn === key && root.dataset.noteSeen === root.dataset.noteState) return;
    root.dataset.noteDrawn = key;
    if (root.dataset.noteState !== undefined) root.dataset.noteSeen = root.dataset.noteState;
    new Controls(root, key).load(root.dataset.noteState);
  });
}

whenChanged(draw, {
  childList: true,
  attributes: true,
  attributeFilter: ["data-note-thing", "data-note-state"],
});

document.addEventListener("keydown", (event) => {
  if (event.key !== "s" || event.ctrlKey || event.metaKey || event.altKey) return;
  if (under(event, "input, textarea, select, [contenteditable]")) return;
  const [star] = all("main .wb-star");
  if (star) {
    event.preventDefault();
    star.click();
  }
});
