// Libraries that not every page uses (grids, graphs of circuits) are loaded when the first component of theirs is drawn.
// The server leaves `<template class="wb-later">` with their address on pages that do not need them at once.

import { all } from "./dom.mjs";

const { React } = window;
const libraries = /** @type {Record<string, Library>} */ (/** @type {unknown} */ (window));

/** @param {string} namespace @param {string} address @param {(library: Library) => Library} put */
function loader(namespace, address, put) {
  /** @type {Promise<Library> | null} */
  let asked = null;
  return () =>
    (asked ??= new Promise((resolve, reject) => {
      const script = document.createElement("script");
      script.src = address;
      script.onload = () => resolve(put(libraries[namespace]));
      script.onerror = () => {
        asked = null; // the next component tries again
        script.remove();
        reject(new Error(`${namespace} could not be loaded; is the server running?`));
      };
      document.head.append(script);
    }));
}

/**
 * A component that draws an empty box of the same size until its library is here.
 * @param {string} name @param {() => Library | null} library @param {() => Promise<Library>} load
 */
function later(name, library, load) {
  /** @param {Properties} props */
  function Later(props) {
    const [ready, setReady] = React.useState(() => Boolean(library()));
    React.useEffect(() => {
      let here = true;
      if (!ready)
        load().then(
          () => here && setReady(true),
          () => {},
        );
      return () => {
        here = false;
      };
    }, []);
    const { id, className, style } = props;
    if (!ready) return React.createElement("div", { className, style, id: typeof id === "string" ? id : undefined });
    const real = library()?.[name];
    if (!real) throw new Error(`${name} is not in its library`);
    if (real.dashRenderType) return React.createElement(real, props);
    const { dashRenderType, ...others } = props;
    return React.createElement(real, others);
  }
  Later.dashRenderType = true;
  // callbacks wait for a component whose promise is not kept yet
  const state = () => (library() ? (library()?.[name]._dashprivate_isLazyComponentReady ?? true) : load());
  Object.defineProperty(Later, "_dashprivate_isLazyComponentReady", { get: state });
  return Later;
}

for (const given of all("template.wb-later")) {
  const { namespace = "", address = "", components = "" } = given.dataset;
  /** @type {Library | null} */
  let real = null;
  /** @type {Library} */
  const shown = {};
  const load = loader(namespace, address, (loaded) => {
    real = loaded;
    const others = Object.entries(loaded).filter(([name]) => !(name in shown));
    libraries[namespace] = Object.assign(shown, Object.fromEntries(others));
    return loaded;
  });
  for (const name of components.split(" ")) shown[name] = later(name, () => real, load);
  const grids = async (/** @type {string} */ id) => gridsOf(await load()).getApiAsync(id);
  if (namespace === "dash_ag_grid") Object.assign(shown, { getApiAsync: grids });
  libraries[namespace] = shown;
}

/** @param {unknown} library */
function gridsOf(library) {
  return /** @type {typeof window.dash_ag_grid} */ (library);
}
