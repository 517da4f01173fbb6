/** The pipeline: the line with its rates, lag and errors. */

import { make } from "../element.js";

export default {
  name: "pipeline",
  title: "Pipeline",
  async ask(question, { get, signal }) {
    return get("/v1/status", {}, signal);
  },
  draw(root) {
    root.replaceChildren(make("h2", { text: this.title }));
  },
};
