// Sources of a map's data: routes of the server (arrays as bytes, text only of inspected points), or a page that contains
// everything (a notebook). Both have the same interface.

import { request } from "../http.mjs";

const ARRAYS = { float32: Float32Array, uint8: Uint8Array, uint16: Uint16Array, int32: Int32Array };
/** @param {Record<string, string>} given */
const query = (given) => new URLSearchParams(Object.entries(given).filter(([, v]) => v !== "" && v != null)).toString();

export class RouteSource {
  /** @param {string} base such as /atlas-data/tokens */
  constructor(base) {
    this.base = base;
    this.asked = new Map();
  }

  /**
   * Request once and cache the promise; a failure is not cached, so that it can be requested again.
   * @template T
   * @param {string} path @param {(answer: Response) => Promise<T>} read @returns {Promise<T>}
   */
  once(path, read) {
    const known = this.asked.get(path);
    if (known) return known;
    const answer = this.get(path).then(read);
    answer.catch(() => this.asked.delete(path));
    this.asked.set(path, answer);
    return answer;
  }

  /** @param {string} path */
  get(path) {
    return request(`${this.base}/${path}`);
  }

  about() {
    return this.once("about.json", (answer) => answer.json());
  }

  regions() {
    return this.once("regions.json", (answer) => answer.json());
  }

  xy() {
    return this.once("xy.bin", async (answer) => new Float32Array(await answer.arrayBuffer()));
  }

  /** @param {{ name: string, dtype: Column["dtype"] }} given */
  column({ name, dtype }) {
    /** @param {Response} answer @returns {Promise<Numbers>} */
    const read = async (answer) => new ARRAYS[dtype](await answer.arrayBuffer());
    return this.once(`${encodeURIComponent(name)}.bin`, read);
  }

  ranks() {
    return this.column({ name: "rank", dtype: "uint16" });
  }

  /** @param {number[]} ids */
  async texts(ids) {
    return (await this.get(`texts.json?${query({ ids: ids.join(",") })}`)).json();
  }

  /**
   * A bit per point, the first point in the lowest bit: those found, and where they are few their nearest neighbours.
   * @param {string} text
   */
  async search(text) {
    const answer = await this.get(`search.bin?${query({ q: text })}`);
    const both = new Uint8Array(await answer.arrayBuffer()),
      size = Math.ceil((await this.about()).n / 8);
    return { bits: both.subarray(0, size), near: both.subarray(size) };
  }

  /** @param {Record<string, string>} given */
  csv(given) {
    return `${this.base}/points.csv?${query(given)}`;
  }

  cells() {
    return this.once("cells.json", (answer) => answer.json());
  }
}

export class EmbeddedSource {
  /** @param {EmbeddedPage} page what `atlas_view(...).to_html()` wrote: about, regions, arrays in base64, texts */
  constructor(page) {
    this.page = page;
    this.asked = new Map();
  }

  async about() {
    return this.page.about;
  }

  async regions() {
    return this.page.regions;
  }

  async xy() {
    return this.array("xy", "float32");
  }

  /** @param {{ name: string, dtype: Column["dtype"] }} given */
  async column({ name, dtype }) {
    return this.array(name, dtype);
  }

  /** @param {string} name @param {Column["dtype"]} dtype */
  array(name, dtype) {
    if (!this.asked.has(name)) {
      const text = atob(this.page.arrays[name]);
      const bytes = new Uint8Array(text.length);
      for (let i = 0; i < bytes.length; i++) bytes[i] = text.charCodeAt(i);
      this.asked.set(name, new ARRAYS[dtype](bytes.buffer));
    }
    return this.asked.get(name);
  }

  async ranks() {
    return "rank" in this.page.arrays ? this.array("rank", "uint16") : null;
  }

  /** @param {number[]} ids */
  async texts(ids) {
    const numbers = this.page.about.columns.filter((c) => c.kind === "number");
    return ids.map((id) => ({
      point: id,
      label: this.page.labels[id] ?? "",
      values: numbers.map((c) => [c.title, this.array(c.name, c.dtype)[id]]),
    }));
  }

  /** @param {string} text */
  async search(text) {
    const needle = text.trim().toLowerCase();
    const bits = new Uint8Array(Math.ceil(this.page.about.n / 8));
    this.page.labels.forEach((label, i) => {
      if (!label.toLowerCase().includes(needle)) return;
      bits[i >> 3] |= 1 << (i & 7);
    });
    return { bits, near: new Uint8Array() };
  }

  async cells() {
    return this.page.cells ?? [];
  }
}

/** @type {RouteSource | null} */
let latest = null;

/**
 * The source at an address; the last one is cached, so that the page uses what was fetched before it loaded.
 * @param {string} base
 */
export function sourceAt(base) {
  if (latest?.base !== base) latest = new RouteSource(base);
  return latest;
}

/**
 * Texts of points by number: the last few thousand are cached. One request runs at a time, for the latest point
 * asked.
 */
export class Texts {
  /** @param {Source} source @param {number} [most] */
  constructor(source, most = 4000) {
    this.source = source;
    this.most = most;
    this.kept = new Map();
    this.wanted = null;
    this.busy = false;
  }

  /** The text if it is cached. @param {number} id */
  get(id) {
    const text = this.kept.get(id);
    if (text) {
      this.kept.delete(id);
      this.kept.set(id, text);
    }
    return text;
  }

  /**
   * Fetch it; `arrived(text)` is called unless another was requested in the meantime.
   * @param {number} id @param {(text: PointText) => void} arrived
   */
  async ask(id, arrived) {
    this.wanted = { id, arrived };
    if (this.busy) return;
    this.busy = true;
    try {
      while (this.wanted) {
        const { id: next, arrived: tell } = this.wanted;
        this.wanted = null;
        const [text] = await this.source.texts([next]);
        this.keep(next, text);
        if (!this.wanted) tell(text);
      }
    } finally {
      this.busy = false;
    }
  }

  /** @param {number} id @param {PointText} text */
  keep(id, text) {
    this.kept.set(id, text);
    if (this.kept.size > this.most) this.kept.delete(this.kept.keys().next().value);
  }
}
