/** Identity: what belongs together, what waits for a decision. */

import { make } from "../element.js";

export default {
  name: "identity",
  title: "Identity",
  async ask(question, { get, signal }) {
    return get("/v1/status", {}, signal);
  },
  draw(root) {
    root.replaceChildren(make("h2", { text: this.title }));
  },
};
