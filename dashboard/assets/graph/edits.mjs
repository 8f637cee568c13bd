// What a visitor has changed: pins, hidden nodes, groups, names and positions, by node id; with undo, and saved at once.

import { json, Refusal } from "../http.mjs";

const EMPTY = { pins: [], hidden: [], groups: [], names: {}, moves: {} };
const PAUSE = 300; // milliseconds without a change before it is saved
const MOST = 200; // steps that can be undone

export class Edits {
  /** @param on changed(), conflict(theirs), failed(message), saved() */
  constructor(source, stored, on) {
    Object.assign(this, { source, on, value: full(stored), was: stored, past: [], future: [], sending: null });
  }

  /** Apply `change` to a copy of the edits, as one step of undo. */
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

  step(from, to) {
    if (!from.length) return;
    to.push(this.value);
    this.put(from.pop());
  }

  put(next) {
    this.value = next;
    this.on.changed();
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.save(), PAUSE);
  }

  toggle(list, ids) {
    this.apply((value) => {
      const all = ids.every((id) => value[list].includes(id));
      value[list] = all ? value[list].filter((id) => !ids.includes(id)) : [...new Set([...value[list], ...ids])];
    });
  }

  /** Put nodes into the group of a name, out of any other; a group without members ends. */
  group(name, ids) {
    this.apply((value) => {
      for (const each of value.groups) each[1] = each[1].filter((id) => !ids.includes(id));
      const known = value.groups.find(([other]) => other === name);
      if (known) known[1].push(...ids);
      else value.groups.push([name, [...ids]]);
      value.groups = value.groups.filter(([, members]) => members.length);
    });
  }

  ungroup(name) {
    this.apply((value) => {
      value.groups = value.groups.filter(([other]) => other !== name);
    });
  }

  renameGroup(name, next) {
    this.apply((value) => {
      const group = value.groups.find(([other]) => other === name);
      if (group && !value.groups.some(([other]) => other === next)) group[0] = next;
    });
  }

  rename(id, name) {
    this.apply((value) => {
      if (name) value.names[id] = name;
      else delete value.names[id];
    });
  }

  move(ids, dx, dy) {
    this.apply((value) => {
      for (const id of ids) {
        const [x, y] = value.moves[id] || [0, 0];
        value.moves[id] = [Math.round(x + dx), Math.round(y + dy)];
      }
    });
  }

  /** The edits by node number; ids that the graph lacks are kept, and not shown. */
  numbers(model) {
    const known = (ids) => ids.map((id) => model.numbers.get(id)).filter((i) => i !== undefined);
    const map = (values) =>
      new Map(
        Object.entries(values)
          .filter(([id]) => model.numbers.has(id))
          .map(([id, v]) => [model.numbers.get(id), v]),
      );
    const { pins, hidden, groups, names, moves } = this.value;
    return {
      pins: new Set(known(pins)),
      hidden: new Set(known(hidden)),
      names: map(names),
      moves: map(moves),
      groups: groups.map(([name, ids]) => ({ name, members: known(ids) })),
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

  async send(edits, was) {
    try {
      this.was = (await json(`${this.source}/edits.json`, { edits, was }, { keepalive: true })).edits;
      this.on.saved();
    } catch (error) {
      if (!(error instanceof Refusal)) this.on.failed(`these edits could not be saved: ${error.message}`);
      else if (error.status === 409) this.on.conflict(JSON.parse(error.found.theirs));
      else this.on.failed(error.message);
    }
  }

  /** Take the edits that somebody else saved. */
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

const full = (stored) => ({ ...structuredClone(EMPTY), ...structuredClone(stored) });

/** Without empty fields, as the server stores them. */
function slim(value) {
  const order = ["pins", "hidden", "groups", "names", "moves"];
  return Object.fromEntries(order.filter((name) => Object.keys(value[name]).length).map((name) => [name, value[name]]));
}
