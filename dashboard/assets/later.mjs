// Libraries that not every page uses (grids, graphs of circuits) are loaded when the first component of theirs is drawn.
// The server leaves `<template class="wb-later">` with their address on pages that do not need them at once.

const React = window.React;

function loader(namespace, address, put) {
  let asked = null;
  return () =>
    (asked ??= new Promise((resolve, reject) => {
      const script = document.createElement("script");
      script.src = address;
      script.onload = () => resolve(put(window[namespace]));
      script.onerror = () => {
        asked = null; // the next component tries again
        script.remove();
        reject(new Error(`${namespace} could not be loaded; is the server running?`));
      };
      document.head.append(script);
    }));
}

// A component that draws an empty box of the same size until its library is here.
function later(name, library, load) {
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
    const real = library()[name];
    if (real.dashRenderType) return React.createElement(real, props);
    const { dashRenderType, ...others } = props;
    return React.createElement(real, others);
  }
  Later.dashRenderType = true;
  // callbacks wait for a component whose promise is not kept yet
  const state = () => (library() ? (library()[name]._dashprivate_isLazyComponentReady ?? true) : load());
  Object.defineProperty(Later, "_dashprivate_isLazyComponentReady", { get: state });
  return Later;
}

document.querySelectorAll("template.wb-later").forEach((given) => {
  const { namespace, address, components } = given.dataset;
  let real = null;
  const shown = {};
  const load = loader(namespace, address, (loaded) => {
    real = loaded;
    const others = Object.fromEntries(Object.entries(loaded).filter(([name]) => !(name in shown)));
    window[namespace] = Object.assign(shown, others);
    return loaded;
  });
  components.split(" ").forEach((name) => {
    shown[name] = later(name, () => real, load);
  });
  if (namespace === "dash_ag_grid") shown.getApiAsync = (id) => load().then(() => real.getApiAsync(id));
  window[namespace] = shown;
});
