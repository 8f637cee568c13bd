// On a phone, panels that begin further down than two screens show their titles only, until one is pressed, and so do
// the tallest of a page that is longer than four screens all the same. So no page is long before a click. The button
// that unfolds one comes with each panel (dashboard/components/frame.py).

const narrow = window.matchMedia("(max-width: 560px)");
const SCREENS = 2;
const LONGEST = 4;
const WITH_SHUTTER = ".wb-panel:has(> .wb-panel-head .wb-shutter)";
/** @type {Set<string | undefined>} */
const opened = new Set(); // titles that the visitor unfolded: they stay open when their panel is drawn again
/** @param {Element} panel */
const titleOf = (panel) => panel.querySelector("h2")?.textContent ?? undefined;

/** @param {Element} panel @param {boolean} folded */
function set(panel, folded) {
  panel.classList.toggle("wb-shut", folded);
  panel.querySelector(".wb-shutter")?.setAttribute("aria-expanded", String(!folded));
}

let due = false;
const asked = (/** @type {Element} */ panel) =>
  Boolean(location.hash && panel.querySelector(`#${CSS.escape(location.hash.slice(1))}`));

/** Decide once for each panel that has come, from the top down; then fold the tallest while the page is too long. */
function fold() {
  due = false;
  if (!narrow.matches) return;
  for (const panel of document.querySelectorAll(`${WITH_SHUTTER}:not([data-placed])`)) {
    const { top, height } = panel.getBoundingClientRect();
    if (!height) continue; // not shown yet
    panel.setAttribute("data-placed", "");
    set(panel, top + window.scrollY > SCREENS * window.innerHeight && !asked(panel) && !opened.has(titleOf(panel)));
  }
  const long = () => document.documentElement.scrollHeight >= LONGEST * window.innerHeight;
  if (!long()) return;
  const panels = [...document.querySelectorAll(`${WITH_SHUTTER}[data-placed]:not(.wb-shut)`)];
  if (panels.some((panel) => opened.has(titleOf(panel)))) return; // the visitor made it long
  const height = new Map(panels.map((panel) => [panel, panel.getBoundingClientRect().height]));
  for (const panel of panels.sort((a, b) => (height.get(b) ?? 0) - (height.get(a) ?? 0)))
    if (!asked(panel) && long()) set(panel, true);
}

new MutationObserver(() => {
  if (!due && narrow.matches) requestAnimationFrame(fold);
  due = narrow.matches;
}).observe(document.body, { childList: true, subtree: true });

document.addEventListener("click", (event) => {
  const button = event.target instanceof Element ? event.target.closest(".wb-shutter") : null,
    panel = button?.closest(".wb-panel");
  if (!panel) return;
  const folded = !panel.classList.contains("wb-shut");
  opened[folded ? "delete" : "add"](titleOf(panel));
  set(panel, folded);
  if (!folded) window.dispatchEvent(new Event("resize")); // figures take their width
});
narrow.addEventListener("change", () => {
  for (const panel of document.querySelectorAll(".wb-shut")) set(panel, false);
  for (const panel of document.querySelectorAll("[data-placed]")) panel.removeAttribute("data-placed");
  fold();
});
