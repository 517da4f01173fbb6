/** A company: its keys and why, its plans, its numbers, its records and latest signals. */

import { make } from "../element.js";

export default {
  name: "company",
  title: "Company",
  companies: true,
  async ask(question, { get, signal }) {
    return get("/v1/status", {}, signal);
  },
  draw(root) {
    root.replaceChildren(make("h2", { text: this.title }));
  },
};
