/**
 * A dialog whose state is the address: what opens it and what closes it change the question, and it follows.
 *
 * The browser holds the focus inside while it is open and knows Escape; this gives the focus back to what opened it
 * also when that was drawn anew meanwhile: an element with `data-opens`, the name under which it was shown.
 */

import { make } from "./element.js";
import { button } from "./parts.js";

export class Dialog {
  /** leave(): asks for the question without it. */
  constructor(id, leave) {
    this.leave = leave;
    this.name = null;  // under which it is shown; null: it is not
    this.place = "";
    this.title = make("h2", { id: `${id}-title`, tabindex: "-1" });
    this.body = make("div", { class: "dialog-body" });
    this.element = make("dialog", { id, class: "dialog", "aria-labelledby": `${id}-title` },
      make("div", { class: "row" }, this.title, button("Close", leave, { id: `${id}-close` })), this.body);
    this.element.addEventListener("cancel", (event) => {
      event.preventDefault();
      leave();
    });
    this.element.addEventListener("close", () => this.name !== null && leave());  // a browser may close it against our will
    // Back may lead to another screen, where nothing would take it away.
    globalThis.addEventListener("popstate", () => this.hide());
    this.element.addEventListener("click", (event) => event.target === this.element && leave());
  }

  /** Shows children under a title.  name: of what was opened;  place: where in it one is; who comes there is told its title. */
  show(name, place, title, ...children) {
    const moved = this.name !== name || this.place !== place;
    Object.assign(this, { name, place });
    this.title.textContent = title;
    this.body.replaceChildren(...children.flat(Infinity).filter((one) => one !== null && one !== undefined));
    if (!this.element.open) this.element.showModal();
    if (moved) {
      this.element.scrollTop = 0;
      this.title.focus();
    }
  }

  hide() {
    const { name } = this;
    this.name = null;
    if (!this.element.open) return;
    this.element.close();
    [...document.querySelectorAll("[data-opens]")].find((one) => one.dataset.opens === name)?.focus();
  }
}
