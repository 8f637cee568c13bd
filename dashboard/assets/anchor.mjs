// The part of a page that its address names (`/sae/demo#concepts`): pages are drawn late, so the browser finds no such
// part when it opens the address. It is scrolled to once it is there, and again while what is above it grows.

import { whenChanged } from "./dom.mjs";

const SETTLED = 5000; // ms, in which figures above it may still be drawn
const MOVES = ["wheel", "touchmove", "keydown", "pointerdown"]; // of a reader, who scrolls alone from then on
let shown = "";

function follow() {
  const { pathname, hash } = location,
    address = `${pathname}${hash}`;
  if (!hash || shown === address) return;
  const part = document.getElementById(decodeURIComponent(hash.slice(1)));
  if (!part) return;
  shown = address;
  part.scrollIntoView();
  const growth = new ResizeObserver(() => part.scrollIntoView()),
    stop = () => growth.disconnect();
  growth.observe(document.body);
  setTimeout(stop, SETTLED);
  for (const move of MOVES) window.addEventListener(move, stop, { once: true });
}

whenChanged(follow, { childList: true });
