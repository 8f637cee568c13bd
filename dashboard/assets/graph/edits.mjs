// What a visitor has changed: pins, hidden nodes, groups, names and positions, by node id; with undo, and saved at once.

import { json, Refusal } from "../http.mjs";

/** @type {GraphEdits} */
const EMPTY = { pins: [], hidden: [], groups: [], names: {}, moves: {}, sets: {} };
const PAUSE = 300; // milliseconds without a change before it is saved
const MOST = 200; // steps that can be undone

export class Edits {
  /**
   * @param {string} source @param {Partial<GraphEdits>} stored @param {EditReports} on
   */
  constructor(source, stored, on) {
    this.source = source;
    this.on = on;
    this.value = full(stored);
    this.was = stored;
    /** @type {GraphEdits[]} */
    this.past = [];
    /** @type {GraphEdits[]} */
    this.future = [];
    /** @type {Promise<void> | null} */
    this.sending = null;
  }

  /** Apply `change` to a copy of the edits, as one step of undo. @param {(edits: GraphEdits) => void} change */
  apply(change) {
    const next = structuredClone(this.value);
    change(next);
    if (JSON.stringify(next) === JSON.stringify(this.value)) return;
    this.past = [...this.past, this.value].slice(-MOST);
    this.future = [];
    this.put(next);
  }

  undo() {
    this.step(this.past, this.future);
  }
  redo() {
    this.step(this.future, this.past);
  }

  /** @param {GraphEdits[]} from @param {GraphEdits[]} to */
  step(from, to) {
    const next = from.pop();
    if (!next) return;
    to.push(this.value);
    this.put(next);
  }

  /** @param {GraphEdits} next */
  put(next) {
    this.value = next;
    this.on.changed();
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.save(), PAUSE);
  }

  /** @param {"pins" | "hidden"} list @param {string[]} ids */
  toggle(list, ids) {
    this.apply((value) => {
      const all = ids.every((id) => value[list].includes(id));
      value[list] = all ? value[list].filter((id) => !ids.includes(id)) : [...new Set([...value[list], ...ids])];
    });
  }

  /**
   * Put nodes into the group of a name, out of any other; a group without members ends.
   * @param {string} name @param {string[]} ids
   */
  group(name, ids) {
    this.apply((value) => {
      for (const each of value.groups) each[1] = each[1].filter((id) => !ids.includes(id));
      const known = value.groups.find(([other]) => other === name);
      if (known) known[1].push(...ids);
      else value.groups.push([name, [...ids]]);
      value.groups = value.groups.filter(([, members]) => members.length);
    });
  }

  /** @param {string} name */
  ungroup(name) {
    this.apply((value) => {
      value.groups = value.groups.filter(([other]) => other !== name);
    });
  }

  /** @param {string} name @param {string} next */
  renameGroup(name, next) {
    this.apply((value) => {
      const group = value.groups.find(([other]) => other === name);
      if (group && !value.groups.some(([other]) => other === next)) group[0] = next;
    });
  }

  /** @param {string} id @param {string} name */
  rename(id, name) {
    this.apply((value) => {
      if (name) value.names[id] = name;
      else delete value.names[id];
    });
  }

  /** @param {string[]} ids @param {number} dx @param {number} dy */
  move(ids, dx, dy) {
    this.apply((value) => {
      for (const id of ids) {
        const [x, y] = value.moves[id] || [0, 0];
        value.moves[id] = [Math.round(x + dx), Math.round(y + dy)];
      }
    });
  }

  /**
   * The edits by node number; ids that the graph lacks are kept, and not shown.
   * @param {Model} model @returns {ResolvedEdits}
   */
  numbers(model) {
    /** @param {string[]} ids */
    const known = (ids) => ids.map((id) => model.numbers.get(id)).filter((i) => i !== undefined);
    /** @template V @param {Record<string, V>} values @returns {Map<number, V>} */
    const map = (values) =>
      new Map(Object.entries(values).flatMap(([id, v]) => known([id]).map((i) => /** @type {[number, V]} */ ([i, v]))));
    const { pins, hidden, groups, names, moves } = this.value;
    return {
      pins: new Set(known(pins)),
      hidden: new Set(known(hidden)),
      names: map(names),
      moves: map(moves),
      groups: groups.map(([name, ids]) => ({ name, members: known(ids) })).filter(({ members }) => members.length), // others are of a former graph of this name
    };
  }

  async save(was = this.was) {
    clearTimeout(this.timer);
    if (this.sending) {
      await this.sending;
      was = this.was;
    }
    const edits = slim(this.value);
    if (JSON.stringify(edits) === JSON.stringify(was)) return;
    this.sending = this.send(edits, was);
    await this.sending;
    this.sending = null;
  }

  /** @param {Partial<GraphEdits>} edits @param {Partial<GraphEdits>} was */
  async send(edits, was) {
    try {
      const answer = await json(`${this.source}/edits.json`, { edits, was }, { keepalive: true });
      this.was = /** @type {{ edits: Partial<GraphEdits> }} */ (answer).edits;
      this.on.saved();
    } catch (error) {
      if (!(error instanceof Refusal))
        this.on.failed(`these edits could not be saved: ${/** @type {Error} */ (error).message}`);
      else if (error.status === 409) this.on.conflict(JSON.parse(error.found.theirs));
      else this.on.failed(error.message);
    }
  }

  /** Take the edits that somebody else saved. @param {Partial<GraphEdits>} theirs */
  take(theirs) {
    this.was = theirs;
    this.past.push(this.value);
    this.value = full(theirs);
    this.on.changed();
  }

  /** Save what has not been saved. */
  close() {
    if (JSON.stringify(slim(this.value)) !== JSON.stringify(this.was)) this.save();
  }
}

/** @param {Partial<GraphEdits>} stored @returns {GraphEdits} */
const full = (stored) => ({ ...structuredClone(EMPTY), ...structuredClone(stored) });

/**
 * Without empty fields, as the server stores them.
 * @param {GraphEdits} value @returns {Partial<GraphEdits>}
 */
function slim({ pins, hidden, groups, names, moves, sets }) {
  const all = Object.entries({ pins, hidden, groups, names, moves, sets });
  return Object.fromEntries(all.filter(([, value]) => Object.keys(value).length));
}
