// Stars, names, notes, lists and recipes of what a page shows, drawn into every `[data-note-thing]`; the buttons of the
// page *Notes*. What is typed lives in sessionStorage until it is saved, so that it survives navigation, the switch of
// the theme and a reload. Texts are set as text, never as HTML.

import { setProps } from "./dash.mjs";
import { all, element, menu, under, whenChanged } from "./dom.mjs";
import { json, Refusal } from "./http.mjs";

const DRAFT = "workbench-note-draft:";
const GONE = { error: "The server does not answer; what you typed stays here." };

/** @typedef {{ title: string, note: string, starred: boolean, tags: string[], lists: string[], features: string[] }} Noted */
/** @typedef {Partial<Record<"saved" | "theirs" | "added" | "replaced" | "older" | "same", string>>} Told */
/** @typedef {Partial<Noted> & Told & { error: string, field: "title" | "note", restore: number, keys: string[] }} Answer */
/**
 * The answer of the server: `{ok, found}`, and the `status` of a refusal; never an exception.
 * @param {string} path @param {unknown} [body] @param {boolean} [again]
 * @returns {Promise<{ ok: boolean, status?: number, found: Answer }>}
 */
async function safely(path, body, again = true) {
  try {
    return { ok: true, found: /** @type {Answer} */ (await json(`/api/notes${path}`, body)) };
  } catch (error) {
    if (error instanceof Refusal && error.status === 403 && again) return safely(path, body, false); // with the new key
    const [status, found] =
      error instanceof Refusal ? [error.status, { ...error.found, error: error.message }] : [0, GONE];
    return { ok: false, status, found: /** @type {Answer} */ (found) };
  }
}

/** @typedef {Record<"title" | "note" | "tags" | "name" | "action" | "amount" | "prompt", string>} Fields */
/** @param {string} key @returns {(Fields & { was: { title: string, note: string } }) | null} */
function stored(key) {
  try {
    return JSON.parse(sessionStorage.getItem(DRAFT + key) ?? "null");
  } catch {
    return null;
  }
}

/** @param {string} key @param {unknown} draft */
function store(key, draft) {
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
function field(label, input) {
  return element("label", {}, element("span", { class: "wb-quiet" }, label), input);
}

/** A text in which #12 and demo:12 link to the features of the workspace. @param {string} text @param {string[]} known @param {string} own */
function linked(text, known, own) {
  const parts = [];
  let from = 0;
  for (const match of text.matchAll(/(?<![\w:/#-])(?:([\w.-]+):|#)(\d{1,7})(?![\w.]\w)/g)) {
    const name = match[1] ?? own;
    if (!known.includes(name)) continue;
    const href = `/feature/${encodeURIComponent(name)}/${match[2]}`;
    parts.push(text.slice(from, match.index), element("a", { class: "wb-link", href }, match[0]));
    from = match.index + match[0].length;
  }
  return [...parts, text.slice(from)];
}

// One thing: its star, name, note, and the form behind "Note".
class Controls {
  /** @param {HTMLElement} root @param {string} key */
  constructor(root, key) {
    this.root = root;
    this.key = key;
    /** @type {Noted} */
    this.state = { title: "", note: "", starred: false, tags: [], lists: [], features: [] };
    /** @type {HTMLFormElement | null} */
    this.form = null;
    /** @type {HTMLFormElement | null} */
    this.recipeForm = null;
    this.was = { title: "", note: "" };
    this.conflict = element("div", { role: "alert" });
    this.inputs = {
      title: element("input", { type: "text", maxLength: 200 }),
      note: element("textarea", { rows: 4, maxLength: 20000 }),
      tags: element("input", { type: "text" }),
    };
    this.star = button("☆", { class: "wb-star", title: "Star (s)" });
    this.star.addEventListener("click", () => this.flip());
    this.title = element("span", { class: "wb-note-title", dir: "auto" });
    this.edit = button("Note", { title: "Name, note and lists" });
    this.edit.addEventListener("click", () => (this.form ? this.close() : this.open()));
    this.text = element("p", { class: "wb-note-text", dir: "auto", hidden: true });
    this.status = element("span", { class: "wb-quiet", role: "status" });
    const actions = [this.star, this.title, this.edit];
    if (/^features\/[^#]+#\d+$/.test(key)) {
      this.recipe = button("Recipe", { title: "Save an intervention on this feature under a name" });
      this.recipe.addEventListener("click", () => (this.recipeForm ? this.closeRecipe() : this.openRecipe()));
      actions.push(this.recipe);
    }
    root.replaceChildren(element("div", { class: "wb-note-line" }, ...actions, this.status), this.text);
  }

  /** @param {string | undefined} given */
  async load(given) {
    if (given) this.show({ lists: [], ...JSON.parse(given) });
    else {
      const { ok, found } = await safely(`?key=${encodeURIComponent(this.key)}`);
      if (this.root.dataset.noteDrawn !== this.key) return; // the page went on to another thing meanwhile
      if (ok) this.show(found);
      else this.fail(found.error);
    }
    if (stored(this.key)) this.open();
  }

  /** @param {Partial<Noted>} state */
  show(state) {
    this.state = { ...this.state, ...state };
    const named = this.state.title || this.key;
    this.star.textContent = this.state.starred ? "★" : "☆";
    this.star.setAttribute("aria-pressed", String(this.state.starred));
    this.star.setAttribute("aria-label", `Star ${named}`);
    this.edit.setAttribute("aria-label", `Note on ${named}`);
    this.edit.setAttribute("aria-expanded", String(Boolean(this.form)));
    this.title.textContent = [this.state.title, this.state.tags.length ? `in ${this.state.tags.join(", ")}` : ""]
      .filter(Boolean)
      .join(" · ");
    const own = this.key.match(/^features\/([^#]+)/)?.[1] ?? this.state.features[0];
    this.text.replaceChildren(...linked(this.state.note, this.state.features, own));
    this.text.hidden = !this.state.note || Boolean(this.form);
  }

  /** @param {string} message */
  fail(message) {
    this.status.textContent = message;
    this.status.classList.add("wb-note-failed");
  }

  /** @param {string} message */
  say(message) {
    this.status.classList.remove("wb-note-failed");
    this.status.textContent = message;
  }

  async flip() {
    const { ok, found } = await safely("/set", { key: this.key, starred: !this.state.starred });
    if (!ok) return this.fail(found.error);
    this.show(found);
    this.say(found.starred ? "Starred" : "Star removed");
  }

  open() {
    const draft = stored(this.key) || {
      title: this.state.title,
      note: this.state.note,
      tags: this.state.tags.join(", "),
      was: { title: this.state.title, note: this.state.note },
    };
    this.was = draft.was;
    for (const name of /** @type {const} */ (["title", "note", "tags"])) this.inputs[name].value = draft[name];
    this.inputs.tags.placeholder = this.state.lists.slice(0, 5).join(", ");
    const save = element("button", { type: "submit", class: "wb-note-save" }, "Save");
    const cancel = button("Cancel");
    cancel.addEventListener("click", () => {
      store(this.key, null);
      this.close();
    });
    this.conflict.replaceChildren();
    this.form = element(
      "form",
      { class: "wb-note-form" },
      field("Name for display", this.inputs.title),
      field("Note", this.inputs.note),
      field("Lists, a comma between them", this.inputs.tags),
      this.conflict,
      element(
        "div",
        { class: "wb-controls" },
        save,
        cancel,
        element("span", { class: "wb-quiet" }, "Ctrl Enter saves"),
      ),
    );
    this.form.addEventListener("input", () => this.keep());
    this.form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.save();
    });
    this.form.addEventListener("keydown", (event) => {
      if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
        event.stopPropagation();
        this.save();
      }
    });
    this.root.append(this.form);
    this.show({});
    if (!stored(this.key)) this.inputs.note.focus();
  }

  keep() {
    const { title, note, tags } = this.inputs;
    store(this.key, { title: title.value, note: note.value, tags: tags.value, was: this.was });
  }

  close() {
    this.form?.remove();
    this.form = null;
    this.show({});
    this.edit.focus();
  }

  async save() {
    const { title, note, tags } = this.inputs;
    const lists = tags.value
      .split(",")
      .map((tag) => tag.trim())
      .filter(Boolean);
    const body = { key: this.key, title: title.value, note: note.value, tags: lists, was: this.was };
    const { ok, status, found } = await safely("/set", body);
    if (status === 409) return this.differ(found.theirs ?? "", found.field);
    if (!ok) return this.conflict.replaceChildren(element("p", { class: "wb-note-failed" }, found.error));
    store(this.key, null);
    this.show(found);
    this.close();
    this.say("Saved");
    if (document.getElementById("feature-grid")) {
      // the list of features shows the name too
      window.dash_ag_grid.getApiAsync("feature-grid").then((grid) => grid.refreshInfiniteCache());
    }
  }

  /**
   * Somebody else saved another text meanwhile: both are shown, and the visitor chooses.
   * @param {string} theirs @param {"title" | "note"} which
   */
  differ(theirs, which) {
    const input = this.inputs[which];
    /** @param {string} text */
    const choose = (text) => () => {
      input.value = text;
      this.was = { ...this.was, [which]: theirs };
      this.keep();
      this.conflict.replaceChildren(element("p", {}, "Save again to keep this text."));
      input.focus();
    };
    const offers = [
      ["Keep both", `${theirs}\n\n${input.value}`],
      ["Keep theirs", theirs],
      ["Keep mine", input.value],
    ]
      .filter(([name]) => which === "note" || name !== "Keep both")
      .map(([name, text]) => {
        const made = button(name);
        made.addEventListener("click", choose(text));
        return made;
      });
    this.conflict.replaceChildren(
      element("p", {}, `The ${which} was changed elsewhere meanwhile. It says now:`),
      element("blockquote", { class: "wb-note-text", dir: "auto" }, theirs || "nothing"),
      element("div", { class: "wb-controls" }, ...offers),
    );
  }

  openRecipe() {
    const [dictionary, feature] = this.key.split("#");
    const kept = stored(`${this.key}:recipe`) || { name: "", action: "add", amount: "1", prompt: "" };
    const largest = Number(this.root.dataset.noteLargest);
    const name = element("input", { type: "text", required: true, maxLength: 80, value: kept.name });
    const actions = ["add", "scale", "set", "ablate"].map((each) => [each, each]);
    const action = menu("Action on the feature", actions, kept.action, undefined, { class: undefined });
    const amount = element("input", { type: "number", step: "any", value: kept.amount });
    const prompt = element("textarea", { rows: 2, value: kept.prompt });
    const status = element("span", { role: "alert" });
    const cancel = button("Cancel");
    cancel.addEventListener("click", () => {
      store(`${this.key}:recipe`, null);
      this.closeRecipe();
    });
    this.recipeForm = element(
      "form",
      { class: "wb-note-form" },
      field("Name of the recipe", name),
      field("Action on the feature", action),
      field(
        largest ? `Amount, × its maximum ${largest.toPrecision(3)}; or the factor` : "Amount, an activation",
        amount,
      ),
      field("Prompt it was tried on", prompt),
      status,
      element(
        "div",
        { class: "wb-controls" },
        element("button", { type: "submit", class: "wb-note-save" }, "Save"),
        cancel,
      ),
    );
    this.recipeForm.addEventListener("input", () =>
      store(`${this.key}:recipe`, {
        name: name.value,
        action: action.value,
        amount: amount.value,
        prompt: prompt.value,
      }),
    );
    this.recipeForm.addEventListener("submit", async (event) => {
      event.preventDefault();
      const unit = largest && ["add", "set"].includes(action.value) ? largest : 1;
      const target = { dictionary, index: Number(feature) },
        step = { target, action: action.value, amount: unit * Number(amount.value) },
        recipe = { name: name.value.trim(), steps: [step], prompt: prompt.value };
      const { ok, found } = await safely("/recipe", { recipe });
      if (!ok) return status.replaceChildren(found.error);
      store(`${this.key}:recipe`, null);
      this.closeRecipe();
      this.say(`Saved as “${found.saved}”`);
    });
    this.root.append(this.recipeForm);
    name.focus();
  }

  closeRecipe() {
    this.recipeForm?.remove();
    this.recipeForm = null;
    this.recipe?.focus();
  }
}

/** @param {HTMLElement} root */
function drawSearch(root) {
  const start = button("Save this search");
  const status = element("span", { class: "wb-quiet", role: "status" });
  start.addEventListener("click", () => {
    const name = element("input", { type: "text", required: true, maxLength: 80, placeholder: "name" });
    name.setAttribute("aria-label", "Name of the search");
    const form = element(
      "form",
      { class: "wb-note-line" },
      name,
      element("button", { type: "submit", class: "wb-link" }, "Save"),
    );
    form.addEventListener("submit", async (event) => {
      event.preventDefault();
      const address = location.pathname + location.search;
      const { ok, found } = await safely("/search", { name: name.value.trim(), address });
      status.textContent = ok ? `Saved as “${found.saved}”` : found.error;
      if (ok) {
        form.remove();
        start.hidden = false;
        start.focus();
      }
    });
    form.addEventListener("keydown", (event) => {
      if (event.key === "Escape") {
        event.stopPropagation();
        form.remove();
        start.hidden = false;
        start.focus();
      }
    });
    start.hidden = true;
    root.append(form);
    name.focus();
  });
  root.replaceChildren(start, status);
}

// The page Notes: delete with undo, restore, import, filter.
function redraw() {
  setProps("notes-state", { data: Date.now() });
}

/** @param {string} message @param {number} [undo] */
function announce(message, undo) {
  document.getElementById("notes-said")?.remove();
  const said = element("div", { id: "notes-said", class: "wb-notice", role: "status" }, `${message} `);
  if (undo) {
    const back = button("Undo");
    back.addEventListener("click", async () => {
      await safely("/restore", { id: undo });
      said.remove();
      redraw();
    });
    said.append(back);
  }
  document.getElementById("notes-parts")?.before(said);
}

document.addEventListener("click", async (event) => {
  const target = under(event, "[data-note-delete], [data-note-restore]");
  if (!target) return;
  const { noteDelete, noteKey, noteRestore } = target.dataset;
  const { ok, found } = noteDelete
    ? await safely("/delete", { kind: noteDelete, key: noteKey })
    : await safely("/restore", { id: Number(noteRestore) });
  if (!ok) announce(found.error);
  else announce(noteDelete ? `Deleted the ${noteDelete} ${noteKey}.` : "Restored.", found.restore);
  redraw();
});

// A line of a list moves up or down; the focus stays on its button, which the server draws again.
let moved = ""; // the label of the button that was pressed
document.addEventListener("click", async (event) => {
  const target = under(event, "[data-note-move]");
  if (!target) return;
  const { noteMove, noteList, noteKey } = target.dataset;
  const { ok, found } = await safely("/move", { name: noteList, key: noteKey, by: Number(noteMove) });
  if (!ok) return announce(found.error);
  moved = target.getAttribute("aria-label") ?? "";
  announce(`${noteKey} is now number ${found.keys.indexOf(noteKey ?? "") + 1} of ${found.keys.length} in ${noteList}.`);
  redraw();
});

function refocus() {
  if (!moved || document.activeElement !== document.body) return;
  all("[data-note-move]")
    .find((each) => each.getAttribute("aria-label") === moved)
    ?.focus();
  moved = "";
}

document.addEventListener("input", (event) => {
  if (under(event, "#notes-filter")) filter();
});

function filter() {
  const field = /** @type {HTMLInputElement | null} */ (document.getElementById("notes-filter"));
  const wanted = (field?.value ?? "").trim().toLowerCase();
  all("#notes-parts [data-text]").forEach((row) => {
    row.hidden = !row.dataset.text?.includes(wanted);
  });
}

/** @param {HTMLElement} root */
function drawImport(root) {
  const input = element("input", { type: "file", accept: ".json,application/json", class: "wb-note-file" });
  input.addEventListener("change", async () => {
    const file = input.files?.[0];
    if (!file) return;
    input.value = "";
    if (file.size > 1e6)
      return announce(
        "This page imports files of up to 1 MB; in Python, Notes.open(workspace).merge(file) takes 16 MB.",
      );
    let body;
    try {
      body = JSON.parse(await file.text());
    } catch {
      return announce(`${file.name} is not valid JSON; nothing was imported.`);
    }
    const { ok, found } = await safely("/import", body);
    announce(
      ok
        ? `Imported from ${file.name}: ${found.added} added, ${found.replaced} replaced by a newer value, ` +
            `${found.older} older than the values here, ${found.same} identical. Older values are kept.`
        : found.error,
    );
    redraw();
  });
  root.replaceChildren(element("label", { class: "wb-link wb-note-import" }, "Import", input));
}

function draw() {
  all("[data-note-thing]").forEach((root) => {
    const key = root.dataset.noteThing ?? "";
    if (root.dataset.noteDrawn === key && root.dataset.noteSeen === root.dataset.noteState) return;
    root.dataset.noteDrawn = key;
    if (root.dataset.noteState !== undefined) root.dataset.noteSeen = root.dataset.noteState;
    new Controls(root, key).load(root.dataset.noteState);
  });
  all("[data-note-search]:empty").forEach(drawSearch);
  all("#notes-import:empty").forEach(drawImport);
  if (document.getElementById("notes-filter")) filter();
  refocus();
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
