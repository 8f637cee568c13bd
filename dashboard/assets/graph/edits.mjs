// What a visitor has changed: pins, names of nodes, and groups that were proposed, by node id; saved at once.

import { json, messageOf } from "../http.mjs";

/** @type {GraphEdits} */
const EMPTY = { pins: [], groups: [], names: {} };
const PAUSE = 300; // milliseconds without a change before it is saved

export class Edits {
  /**
   * @param {string} source @param {Partial<GraphEdits>} stored @param {EditReports} on
   */
  constructor(source, stored, on) {
    this.source = source;
    this.on = on;
    this.value = { ...structuredClone(EMPTY), ...structuredClone(stored) };
    this.was = stored;
    /** @type {Promise<void> | null} */
    this.sending = null;
  }

  /** Apply `change` to a copy of the edits. @param {(edits: GraphEdits) => void} change */
  apply(change) {
    const next = structuredClone(this.value);
    change(next);
    if (JSON.stringify(next) === JSON.stringify(this.value)) return;
    this.value = next;
    this.on.changed();
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.save(), PAUSE);
  }

  /** @param {string} id */
  togglePin(id) {
    this.apply((value) => {
      value.pins = value.pins.includes(id) ? value.pins.filter((other) => other !== id) : [...value.pins, id];
    });
  }

  /** @param {string} id @param {string} name */
  rename(id, name) {
    this.apply((value) => {
      if (name) value.names[id] = name;
      else delete value.names[id];
    });
  }

  /** @param {GraphEdits["groups"]} groups */
  regroup(groups) {
    this.apply((value) => {
      value.groups = groups;
    });
  }

  /**
   * The edits by node number; ids that the graph lacks are kept, and not shown.
   * @param {Model} model @returns {ResolvedEdits}
   */
  numbers(model) {
    /** @param {string[]} ids */
    const known = (ids) => ids.map((id) => model.numbers.get(id)).filter((i) => i !== undefined);
    const { pins, groups, names } = this.value;
    return {
      pins: new Set(known(pins)),
      names: new Map(Object.entries(names).flatMap(([id, name]) => known([id]).map((i) => [i, name]))),
      groups: groups.map(([name, ids]) => ({ name, members: known(ids) })).filter(({ members }) => members.length), // others are of a former graph of this name
    };
  }

  async save() {
    clearTimeout(this.timer);
    await this.sending;
    if (!this.unsaved) return;
    this.sending = this.send(this.stored);
    await this.sending;
    this.sending = null;
  }

  /** @param {Partial<GraphEdits>} edits */
  async send(edits) {
    try {
      const answer = await json(`${this.source}/edits.json`, { edits, was: this.was }, { keepalive: true });
      this.was = /** @type {{ edits: Partial<GraphEdits> }} */ (answer).edits;
      this.on.saved();
    } catch (error) {
      this.on.failed(`These edits are not saved: ${messageOf(error)}`);
    }
  }

  /** Without empty fields, as the server stores them. @returns {Partial<GraphEdits>} */
  get stored() {
    const { pins, groups, names } = this.value;
    return Object.fromEntries(Object.entries({ pins, groups, names }).filter(([, value]) => Object.keys(value).length));
  }

  get unsaved() {
    return JSON.stringify(this.stored) !== JSON.stringify(this.was);
  }

  /** Save what has not been saved. */
  close() {
    if (this.unsaved) this.save();
  }
}
