// A banner while the server does not answer: shown when a request fails and a second one too, gone when one succeeds.

const EVERY = 2000;
const ask = window.fetch.bind(window);
let asking = false,
  leaving = false;

const answers = () =>
  ask("/assets/theme.mjs", { method: "HEAD", cache: "no-store" }).then(
    () => true,
    () => false,
  );
/** @param {boolean} gone */
const show = (gone) => {
  const banner = document.getElementById("server-gone");
  if (banner) banner.hidden = !gone;
};

async function check() {
  if (asking || leaving) return;
  asking = true;
  while (!leaving && !(await answers())) {
    show(true);
    await new Promise((resolve) => setTimeout(resolve, EVERY));
  }
  show(false);
  asking = false;
}

window.fetch = (...given) =>
  ask(...given).catch((error) => {
    if (error?.name !== "AbortError") check(); // an aborted request was given up by the page, not by the server
    throw error;
  });
window.addEventListener("pagehide", () => {
  leaving = true;
});
window.addEventListener("pageshow", () => {
  leaving = false;
});
