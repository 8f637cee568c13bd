// Draws the figures of executed notebooks when they come into view; plotly is fetched from this site, and only then.
(() => {
  const holders = document.querySelectorAll(".plotly-figure");
  if (!holders.length) return;
  const here = /** @type {HTMLScriptElement} */ (document.currentScript).src;
  /** @type {Promise<Plotly> | null} */
  let loading = null;

  function plotly() {
    loading ??= new Promise((resolve, reject) => {
      const script = document.createElement("script");
      script.src = new URL("plotly.min.js", here).href;
      script.onload = () => resolve(window.Plotly);
      script.onerror = () => reject(new Error("plotly.min.js is missing from this site"));
      document.head.append(script);
    });
    return loading;
  }

  /** @param {Element} holder */
  async function draw(holder) {
    const figure = JSON.parse(holder.querySelector("script")?.textContent ?? "{}");
    const layout = { ...figure.layout, paper_bgcolor: "#fff", width: undefined, autosize: true };
    await (await plotly()).newPlot(holder, figure.data, layout, { responsive: true, displaylogo: false });
  }

  const seen = new IntersectionObserver(
    (entries) => {
      for (const entry of entries.filter((each) => each.isIntersecting)) {
        seen.unobserve(entry.target);
        draw(entry.target);
      }
    },
    { rootMargin: "400px" },
  );
  holders.forEach((holder) => seen.observe(holder));
})();
