/** The organisation: how far its companies are, how its sources do, what did not fit. */

import { make } from "../element.js";

export default {
  name: "overview",
  title: "Overview",
  async ask(question, { get, signal }) {
    return get("/v1/status", {}, signal);
  },
  draw(root) {
    root.replaceChildren(make("h2", { text: this.title }));
  },
};
