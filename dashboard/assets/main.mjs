// The one script of every page: loads the parts that every page has, gives Dash their functions by name, and starts it.
// Larger parts (a prompt, a graph, the map) are loaded when they are drawn.

import "./theme.mjs";
import "./anchor.mjs";
import "./back.mjs";
import "./brush.mjs";
import "./fold.mjs";
import "./graph.mjs";
import "./later.mjs";
import "./notes.mjs";
import "./palette.mjs";
import "./server.mjs";
import "./tokens.mjs";
import "./tour.mjs";
import * as atlas from "./atlas.mjs";
import * as search from "./search.mjs";
import { Still } from "./still.mjs";
import * as workbench from "./workbench.mjs";

/** @typedef {typeof import("./prompt/prompt.mjs")} PromptPage */
const workbenchPrompt = {
  run: async (/** @type {Parameters<PromptPage["run"]>} */ ...given) =>
    (await import("./prompt/prompt.mjs")).run(...given),
  answer: async (/** @type {Parameters<PromptPage["answer"]>} */ ...given) =>
    (await import("./prompt/prompt.mjs")).answer(...given),
};
/** @typedef {typeof import("./say/say.mjs")} SayPanel */
const say = {
  begin: async (/** @type {Parameters<SayPanel["begin"]>} */ ...given) =>
    (await import("./say/say.mjs")).begin(...given),
};

Object.assign(window, { workbench_atlas: { AtlasMap: atlas.AtlasMap }, workbench_still: { Still } });
Object.assign(window.dash_clientside, { atlas, say, search, workbench, workbenchPrompt });
new window.DashRenderer(); // the page does not start it itself, as scripts in it run before modules do
