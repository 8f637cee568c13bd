// What the views of the prompt page share: elements whose texts are texts, colours of the scheme, requests, canvases.
(function () {
  const parts = (window.workbenchPromptParts = window.workbenchPromptParts || {});

  // Build an element; a string child becomes a text node, never HTML.
  function el(tag, given, ...children) {
    const made = document.createElement(tag);
    for (const [key, value] of Object.entries(given || {})) {
      if (value === null || value === undefined || value === false) continue;
      if (key.startsWith("on")) made.addEventListener(key.slice(2), value);
      else if (key === "style") Object.entries(value).forEach(([name, text]) => made.style.setProperty(name, text));
      else made.setAttribute(key, value === true ? "" : value);
    }
    made.append(...children.filter((child) => child !== null && child !== undefined));
    return made;
  }

  // A token on one line, as `visible` of dashboard/figures/theme.py writes it.
  function visible(text, limit) {
    let shown = text.replace(/\r\n|\n|\r/g, "↵").replace(/\t/g, "⇥");
    if (shown && !shown.replace(/ /g, "")) shown = "␣".repeat(shown.length);
    const letters = Array.from(shown);
    return limit && letters.length > limit ? letters.slice(0, limit - 1).join("") + "…" : shown;
  }

  const spaced = (text, limit) => visible(text, limit).replace(/^ /, "␣");

  function colours() {
    const holder = document.getElementById("prompt-views");
    const known = JSON.parse(holder.getAttribute("data-colours"));
    return known[document.documentElement.dataset.scheme === "dark" ? "dark" : "light"];
  }

  // 256 colours [r, g, b] along the stops of a scale.
  function table(stops) {
    const rgb = stops.map(([at, hex]) => [at, [1, 3, 5].map((i) => parseInt(hex.slice(i, i + 2), 16))]);
    return Array.from({ length: 256 }, (_, n) => {
      const x = n / 255, above = Math.max(1, rgb.findIndex(([at]) => at >= x));
      const [low, from] = rgb[above - 1], [high, to] = rgb[above];
      const share = Math.min(1, Math.max(0, (x - low) / (high - low)));
      return from.map((value, i) => Math.round(value + share * (to[i] - value)));
    });
  }

  const css = ([r, g, b]) => `rgb(${r},${g},${b})`;

  // A canvas of this size in CSS pixels, sharp on dense screens.
  function fit(canvas, width, height) {
    const dense = window.devicePixelRatio || 1;
    canvas.width = Math.round(width * dense);
    canvas.height = Math.round(height * dense);
    canvas.style.width = width + "px";
    canvas.style.height = height + "px";
    const context = canvas.getContext("2d");
    context.setTransform(dense, 0, 0, dense, 0, 0);
    context.clearRect(0, 0, width, height);
    return context;
  }

  // A picture of bytes (0 to 255) through a colour table, one pixel each; `hidden(x, y)` leaves one transparent.
  function picture(bytes, width, height, lut, hidden) {
    const canvas = document.createElement("canvas");
    canvas.width = width;
    canvas.height = height;
    const context = canvas.getContext("2d"), image = context.createImageData(width, height);
    for (let i = 0; i < width * height; i++) {
      if (hidden && hidden(i % width, Math.floor(i / width))) continue;
      const [r, g, b] = lut[bytes[i]];
      image.data.set([r, g, b, 255], 4 * i);
    }
    context.putImageData(image, 0, 0);
    return canvas;
  }

  function bytes(base64) {
    const text = atob(base64), found = new Uint8Array(text.length);
    for (let i = 0; i < text.length; i++) found[i] = text.charCodeAt(i);
    return found;
  }

  // Ask a route; the answer's `error` becomes an exception, a request that was replaced becomes null.
  async function ask(what, body, signal) {
    try {
      const answer = await send(what, body, signal);
      if (answer.status === 409) return null;
      if (!answer.ok) throw new Error(await sentence(answer));
      return await answer.json();
    } catch (error) {
      if (error.name === "AbortError") return null;
      throw error;
    }
  }

  // The error of an answer: of our routes as JSON, of the guard before them as plain text.
  async function sentence(answer) {
    const text = await answer.text();
    try {
      return JSON.parse(text).error;
    } catch {
      return text.trim().slice(0, 300) || `the server answered ${answer.status}`;
    }
  }

  const send = (what, body, signal) =>
    fetch(`/prompt-data/${what}`, {
      method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body), signal,
    });

  // Call after a pause: only the last of several calls counts.
  function settled(milliseconds, call) {
    let timer = 0;
    return (...given) => {
      clearTimeout(timer);
      timer = setTimeout(() => call(...given), milliseconds);
    };
  }

  function failed(error) {
    return el("div", { class: "wb-notice wb-notice-error", role: "alert" }, error.message);
  }

  const percent = (p) => (p < 0.0005 ? "<0.1%" : (100 * p).toFixed(1) + "%");

  // A menu with a name for screen readers.
  function menu(label, choices, value, change) {
    const made = el("select", { class: "wb-native", "aria-label": label, onchange: () => change(made.value) });
    choices.forEach(([key, text]) => made.append(el("option", { value: key, selected: key === value }, text)));
    return made;
  }

  Object.assign(parts, {
    el, visible, spaced, colours, table, css, fit, picture, bytes, ask, send, sentence, settled, failed, percent, menu,
  });
})();
