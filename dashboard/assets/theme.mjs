// Light or dark is decided before anything is drawn: the visitor's earlier choice, else the system's preference.

import { setProps } from "./dash.mjs";

const KEY = "workbench-scheme";
const media = window.matchMedia("(prefers-color-scheme: dark)");

function stored() {
  try {
    return localStorage.getItem(KEY);
  } catch {
    return null;
  }
}

export function current() {
  const kept = stored();
  return kept === "light" || kept === "dark" ? kept : media.matches ? "dark" : "light";
}

/** @param {string} scheme */
function apply(scheme) {
  document.documentElement.dataset.scheme = scheme;
  document.documentElement.dataset.mantineColorScheme = scheme;
  document.documentElement.dataset.agThemeMode = scheme;
}

export function flip() {
  const next = current() === "dark" ? "light" : "dark";
  try {
    localStorage.setItem(KEY, next);
  } catch {
    /* private window: the choice lasts for this page only */
  }
  apply(next);
  return next;
}

apply(current());
media.addEventListener("change", () => {
  if (stored()) return;
  apply(current());
  setProps("scheme", { data: current() });
  setProps("provider", { forceColorScheme: current() });
});
