// Inputs made from the fields of an act: labels, limits, choices, defaults and help come from the server
// (dashboard/components/forms.py), which reads them off the act.

import { element, menu } from "./dom.mjs";

/** The fields of the forms that an element brings. @param {HTMLElement} holder @returns {Record<string, Fields>} */
export const fieldsOf = (holder) => JSON.parse(holder.dataset.fields ?? "{}");

/** The menu of the choices of a field. @param {Field} field @param {Attributes} [given] */
export const menuOf = ({ choices, title, help, ...field }, given = {}) =>
  menu(title, choices, String(field.default), undefined, { title: help, ...given });

/** The input of a field: a box to check, a number within its limits, or a text. @param {Field} field @param {Attributes} [given] */
export function inputOf({ kind, least, most, ...field }, given = {}) {
  const value = field.default ?? "";
  if (kind === "switch") return element("input", { type: "checkbox", checked: value === true, ...given });
  if (kind === "text") return element("input", { class: "wb-native", type: "text", value, ...given });
  const step = kind === "whole" ? 1 : "any";
  return element("input", { class: "wb-native", type: "number", min: least, max: most, step, value, ...given });
}

/** The slider of a number, over its usual values. @param {Field} field @param {Attributes} [given] */
export function sliderOf({ slider, ...field }, given = {}) {
  const [min, max, step] = slider ?? [0, 1, 0.1];
  return element("input", { type: "range", min, max, step, value: field.default ?? 0, ...given });
}

/** A label around an input, with its help as a tip. @param {Field} field @param {HTMLElement} input */
export const labelled = ({ title, help }, input) => element("label", { class: "wb-field", title: help }, title, input);

/** The help of some fields behind a "?". @param {Fields} fields */
export function helpOf(fields) {
  const text = Object.values(fields)
    .map(({ title, help }) => `${title}: ${help}`)
    .join("\n");
  const mark = element("summary", { title: text, "aria-label": "What the fields mean" }, "?");
  return element("details", { class: "wb-more" }, mark, element("p", {}, text));
}
