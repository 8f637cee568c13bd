// Back and forward return to the place where a visitor was: the scroll of the page and of its grids, by address.

const KEY = "wb-places",
  MOST = 60,
  LONGEST = 10_000,
  CALM = 900; // addresses remembered; milliseconds
/** @typedef {{ y: number, boxes: [key: string, top: number, left: number][] }} Place */
const BOXES = ".ag-body-viewport, .wb-lens, .wb-token-features, .wb-scroll";
const address = () => location.pathname + location.search;
let here = address();
/** @type {(() => void) | null} */
let stop = null; // ends the restoring that goes on

history.scrollRestoration = "manual"; // the browser restores before a page is drawn

/** @returns {Map<string, Place>} */
function places() {
  try {
    return new Map(JSON.parse(sessionStorage.getItem(KEY) || "[]"));
  } catch {
    return new Map();
  }
}

function boxes() {
  /** @type {Map<string, Element>} */
  const found = new Map();
  document.querySelectorAll(BOXES).forEach((box) => {
    const owner = box.closest("[id]")?.id || "",
      n = [...found.keys()].filter((key) => key.startsWith(`${owner}#`)).length;
    found.set(`${owner}#${n}`, box);
  });
  return found;
}

function save() {
  const moved = [...boxes()].filter(([, box]) => box.scrollTop || box.scrollLeft);
  /** @type {Place} */
  const place = { y: window.scrollY, boxes: moved.map(([key, box]) => [key, box.scrollTop, box.scrollLeft]) };
  const known = places();
  known.delete(here);
  known.set(here, place);
  sessionStorage.setItem(KEY, JSON.stringify([...known].slice(-MOST)));
}

/**
 * Pages are drawn in parts and grids load as they scroll, so this goes on until nothing has moved for a while.
 * @param {Place} place
 */
function restore(place) {
  if (stop) stop();
  const started = performance.now(),
    done = new AbortController();
  /** @type {Element | null} */
  let page = null;
  let calm = started,
    height = 0;
  stop = () => {
    done.abort();
    stop = null;
  };
  for (const name of ["wheel", "touchstart", "pointerdown", "keydown"]) {
    window.addEventListener(name, () => stop?.(), { once: true, signal: done.signal, capture: true });
  }
  const step = () => {
    if (done.signal.aborted) return;
    const now = performance.now(),
      shown = document.querySelector(".wb-page"),
      tall = document.documentElement.scrollHeight;
    if (shown !== page || tall !== height || !set(place)) [calm, page, height] = [now, shown, tall];
    if (now - started > LONGEST || (now - calm > CALM && now - started > 2 * CALM)) return stop?.();
    setTimeout(step, 50);
  };
  step();
}

/** Return whether everything is where it was. @param {Place} given */
function set({ y, boxes: wanted }) {
  const found = boxes();
  if (Math.abs(window.scrollY - y) > 2) window.scrollTo(0, y);
  const there = wanted.map(([key, top, left]) => {
    const box = found.get(key);
    if (!box) return false;
    if (Math.abs(box.scrollTop - top) > 2) box.scrollTop = top;
    if (Math.abs(box.scrollLeft - left) > 2) box.scrollLeft = left;
    return Math.abs(box.scrollTop - top) <= 2;
  });
  return Math.abs(window.scrollY - y) <= 2 && there.every(Boolean);
}

const push = history.pushState,
  replace = history.replaceState;
history.pushState = function (...given) {
  save();
  if (stop) stop();
  push.apply(this, given);
  here = address();
};
history.replaceState = function (...given) {
  replace.apply(this, given);
  here = address();
};
window.addEventListener("popstate", () => {
  if (here === address()) return; // an event of our own, which only tells the router
  save();
  here = address();
  restore(places().get(here) || { y: 0, boxes: [] });
});
window.addEventListener("pagehide", save);
const [arrived] = /** @type {PerformanceNavigationTiming[]} */ (performance.getEntriesByType("navigation"));
const before = places().get(here);
if (arrived?.type !== "navigate" && before) restore(before);
