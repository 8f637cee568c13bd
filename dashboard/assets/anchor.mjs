// The part of a page that its address names (`/sae/demo#concepts`): pages are drawn late, so the browser finds no such
// part when it opens the address. It is scrolled to once it is there.

import { whenChanged } from "./dom.mjs";

const SETTLED = 600; // ms, in which what stands above it may still grow
let shown = "";

function follow() {
  const { pathname, hash } = location,
    address = `${pathname}${hash}`;
  if (!hash || shown === address) return;
  const part = document.getElementById(decodeURIComponent(hash.slice(1)));
  if (!part) return;
  shown = address;
  part.scrollIntoView();
  setTimeout(() => location.hash === hash && part.scrollIntoView(), SETTLED);
}

whenChanged(follow, { childList: true });
