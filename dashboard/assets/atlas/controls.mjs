// The controls on the map: colour and size of points, search, modes, overlays, and export of pictures.

import { count, element, icon, menu } from "../dom.mjs";

/** @type {Record<string, string>} */
const ICONS = {
  pan: "M8 1v14M1 8h14M8 1 6 3M8 1l2 2M8 15l-2-2M8 15l2-2M1 8l2-2M1 8l2 2M15 8l-2-2M15 8l-2 2",
  lasso:
    "M8 2c3.6 0 6 1.6 6 4s-2.600 4-6 4-6-1.600-6-4 2.400-4 6-4M4.500 9.500c-1.500 1-1 2.500.5 2.500s1.500 2 0 2.500",
  rectangle: "M2 3.500h2M6 3.500h4M12 3.500h2v2M14 8v2M14 12.500h-2M10 12.500H6M4 12.500H2v-2M2 8V6M2 5.500v-2",
  box: "M7 2.500a4.500 4.500 0 1 0 0 9a4.500 4.500 0 0 0 0-9M10.300 10.300 14 14M5 7h4M7 5v4",
  closer: "M8 3v10M3 8h10",
  farther: "M3 8h10",
  all: "M2 6V2h4M10 2h4v4M14 10v4h-4M6 14H2v-4",
  labels: "M3 4V3h10v1M8 3v10M6 13h4",
  grid: "M2.500 2.500h11v11h-11zM2.500 6.200h11M2.500 9.800h11M6.200 2.500v11M9.800 2.500v11",
  picture: "M2 3h12v10H2zM2 11l4-4 3 3 2-2 3 3M10.500 6h.01",
  table: "M8 2v8M5 7l3 3 3-3M3 13h10",
  fullscreen: "M2 6V2h4M14 10v4h-4M2 2l5 5M14 14 9 9",
};
const MODES = [
  ["pan", "Move (drag)"],
  ["lasso", "Lasso (shift-drag)"],
  ["rectangle", "Rectangle (alt-drag)"],
  ["box", "Zoom to a box"],
];
const OVERLAYS = [
  ["labels", "Names of regions"],
  ["grid", "Grid of mean activations"],
];

export class Controls {
  /**
   * @param {HTMLElement} root
   * @param {About} about @param {ControlReports} on
   */
  constructor(root, about, on) {
    this.on = on;
    this.about = about;
    this.colour = this.choice("Colour", colourings(about), (colour) => on.change({ colour }));
    this.search = element("input", {
      type: "search",
      class: "atlas-search",
      placeholder: "search the map   f",
      "aria-label": "Search the map",
      spellcheck: "false",
      oninput: () => this.typed(),
      onkeydown: (event) => this.searchKey(event),
    });
    this.found = element("span", { class: "atlas-found", role: "status" });
    this.clear = element(
      "button",
      { type: "button", class: "atlas-clear", hidden: true, onclick: () => on.clear() },
      "clear",
    );
    this.panel = element(
      "div",
      { class: "atlas-tools" },
      this.colour.label,
      element("span", { class: "wb-search" }, this.search),
      element("span", { class: "atlas-outcome" }, this.found, this.clear),
    );
    this.modes = this.group("Mode", MODES, (name) => on.mode(name));
    const overlays = OVERLAYS.filter(([name]) => name !== "grid" || about.cells);
    this.overlays = this.group("Drawn over the map", overlays, (name) => on.toggle(name));
    const zooms = [
      ["closer", "Closer (+)"],
      ["farther", "Farther (−)"],
      ["all", "Everything (0)"],
    ];
    /** @type {Record<string, (() => void) | null>} */
    const saves = { picture: on.picture, table: on.table, fullscreen: on.fullscreen };
    const outputs = [
      ["picture", "Save a picture (PNG)"],
      ["table", "Save the table (CSV)"],
      ["fullscreen", "Full screen"],
    ].filter(([name]) => saves[name]);
    this.bar = element(
      "div",
      { class: "atlas-bar" },
      this.modes.box,
      this.group("Zoom", zooms, (how) => on.zoom(how)).box,
      this.overlays.box,
      this.group("Save", outputs, (name) => saves[name]?.()).box,
    );
    root.append(this.panel, this.bar);
  }

  /** @param {string} name @param {string[][]} options @param {(value: string) => void} chosen */
  choice(name, options, chosen) {
    const select = menu(name, options, options[0]?.[0] ?? "", chosen, { class: undefined });
    return { select, label: element("label", { class: "atlas-choice" }, element("span", {}, name), select) };
  }

  /** @param {string} name @param {string[][]} entries @param {(key: string) => void} pressed */
  group(name, entries, pressed) {
    /** @type {Record<string, HTMLElement>} */
    const buttons = {};
    const box = element("div", { class: "atlas-group", role: "group", "aria-label": name });
    for (const [key, title] of entries) {
      buttons[key] = element(
        "button",
        { type: "button", title, "aria-label": title, "data-atlas": key, onclick: () => pressed(key) },
        icon(ICONS[key]),
      );
      box.append(buttons[key]);
    }
    return { box, buttons };
  }

  typed() {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.on.change({ search: this.search.value }), 220);
  }

  /** @param {KeyboardEvent} event */
  searchKey(event) {
    if (event.key === "Escape" && this.search.value) {
      event.stopPropagation();
      this.search.value = "";
      this.on.change({ search: "" });
    }
  }

  /** Set the controls to the state of the view. @param {AtlasState} state @param {string} mode */
  show(state, mode) {
    this.colour.select.value = state.colour;
    if (document.activeElement !== this.search) this.search.value = state.search;
    /** @param {{ buttons: Record<string, HTMLElement> }} given @param {(name: string) => boolean} isOn */
    const press = ({ buttons }, isOn) =>
      Object.entries(buttons).forEach(([k, b]) => b.setAttribute("aria-pressed", String(isOn(k))));
    press(this.modes, (name) => name === mode);
    press(this.overlays, (name) => state.overlays.includes(name));
  }

  /** "312 of 49,152" while points are selected. @param {number | null} marked @param {number} n @param {string} what */
  tell(marked, n, what) {
    this.found.textContent = marked === null ? "" : `${count(marked)} ${what}`;
    this.found.title = marked === null ? "" : `${count(marked)} of ${count(n)} points`;
    this.clear.hidden = marked === null;
  }
}

/** @param {About} about */
function colourings(about) {
  const regions = about.levels ? [["regions", "regions, by zoom"]] : [];
  for (let level = 0; about.levels > 1 && level < about.levels; level++) {
    regions.push([`level_${level}`, `regions, level ${level + 1} of ${about.levels}`]);
  }
  return [
    ...regions,
    ...about.columns.filter((c) => c.kind !== "region").map((c) => [c.name, c.title]),
    ["none", "one colour"],
  ];
}
