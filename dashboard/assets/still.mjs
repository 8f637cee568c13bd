// The Dash component `workbench_still.Still`: parts of a page that no callback addresses, drawn as plain elements. Dash
// subscribes each of its own components to every change of the page, which makes a page of a thousand of them slow.

/** @typedef {string | PartElement} Part */
/** @typedef {[tag: string, properties: Properties | null, ...children: Part[]]} PartElement */
const { createElement, Fragment, useMemo } = window.React;

/** A link of `dcc.Link`: the router shows the page, except in a new tab or window. @param {{ href: string }} given */
function Link({ href, ...others }) {
  const address = window.dash_clientside.clean_url(href);
  /** @param {MouseEvent} event */
  const follow = (event) => {
    if (event.metaKey || event.shiftKey || event.altKey || event.ctrlKey) return;
    event.preventDefault();
    history.pushState({}, "", address);
    window.dispatchEvent(new CustomEvent("_dashprivate_pushstate"));
    window.scrollTo(0, 0);
  };
  return createElement("a", { ...others, href: address, onClick: follow });
}

/**
 * `[tag, properties, ...children]`, or a text, which is set as text.
 * @param {Part} part @returns {ReactNode | string}
 */
function draw(part) {
  if (!Array.isArray(part)) return part;
  const [tag, properties, ...children] = part;
  return createElement(tag === "Link" ? Link : tag, properties, ...children.map(draw));
}

let drawn = 0;
/** @param {{ tree: Part[] }} given */
export function Still({ tree }) {
  const key = useMemo(() => drawn++, [tree]); // elements that scripts have changed are not used again
  return useMemo(() => createElement(Fragment, { key }, ...tree.map(draw)), [tree]);
}
