/** The breakdown: one row a company or dimension value, sortable, long lists folded. */

import { ofRow } from "./explain.js";
import { number, reasonWords } from "./words.js";

const SHOWN = 25;

export class Breakdown {
  /** onCompany(metakey) is called when a person follows a company's row, onWhy(by, key) when one asks why a row's number is so. */
  constructor(elements, onCompany, onWhy) {
    Object.assign(this, elements);
    this.onCompany = onCompany;
    this.onWhy = onWhy;
    this.order = { by: "value", up: false };
    this.folded = true;
    this.model = null;
    this.sortLabel.addEventListener("click", () => this.sort("label"));
    this.sortValue.addEventListener("click", () => this.sort("value"));
    this.more.addEventListener("click", () => {
      this.folded = !this.folded;
      this.draw();
    });
  }

  /** model: {rows: [{key, label, value, reason}], by, unit, heading}, or null with the words that say why there are none. */
  show(model, words = "") {
    const held = this.body.contains(document.activeElement) ? document.activeElement : null;
    const [row, name] = [held?.closest("tr").dataset.key, held?.dataset.opens];
    if (model?.by !== this.model?.by) this.folded = true;
    this.model = model;
    const none = model?.by === "company" ? "No company has values in this window." : "There is nothing to break down in this window.";
    this.note.textContent = model && !model.rows.length ? none : words;
    this.note.hidden = !this.note.textContent;
    this.draw();
    // "Live" draws anew every few seconds: whoever stands on a row stays on it.
    const buttons = [...[...this.body.rows].find((one) => one.dataset.key === row)?.querySelectorAll("button") ?? []];
    if (held !== null) (buttons.find((one) => one.dataset.opens === name) ?? buttons[0])?.focus();
  }

  sort(by) {
    this.order = { by, up: this.order.by === by ? !this.order.up : by === "label" };
    this.draw();
  }

  draw() {
    const { rows = [], unit, heading } = this.model ?? {};
    this.table.hidden = rows.length === 0;
    this.more.hidden = rows.length <= SHOWN;
    if (!rows.length) return this.body.replaceChildren();
    this.sortLabel.textContent = heading;
    for (const [by, head] of [["label", this.labelHead], ["value", this.valueHead]]) {
      if (this.order.by === by) head.setAttribute("aria-sort", this.order.up ? "ascending" : "descending");
      else head.removeAttribute("aria-sort");
    }
    const most = Math.max(0, ...rows.map((row) => Math.abs(Number(row.value)) || 0));
    const sorted = [...rows].sort((a, b) => this.compare(a, b));
    this.more.textContent = this.folded ? `Show all ${rows.length}` : `Show the first ${SHOWN}`;
    return this.body.replaceChildren(...sorted.slice(0, this.folded ? SHOWN : undefined).map((row) => this.row(row, unit, most)));
  }

  compare(a, b) {
    const sign = this.order.up ? 1 : -1;
    if (this.order.by === "label") return sign * label(a).localeCompare(label(b), "en");
    const absent = (a.value === null) - (b.value === null);  // rows without a value stay last, whichever way
    return absent || sign * (Number(a.value) - Number(b.value)) || label(a).localeCompare(label(b), "en");
  }

  row(row, unit, most) {
    const line = document.createElement("tr");
    line.dataset.key = row.key;
    line.dataset.value = row.value === null ? "" : String(row.value);
    const head = document.createElement("th");
    head.scope = "row";
    if (this.model.by === "company") {
      const follow = document.createElement("button");
      follow.type = "button";
      follow.className = "link";
      follow.textContent = label(row);
      follow.addEventListener("click", () => this.onCompany(row.key));
      head.append(follow);
    } else head.textContent = label(row);
    const share = document.createElement("td");
    share.className = "share";
    share.setAttribute("aria-hidden", "true");
    const bar = document.createElement("span");
    bar.style.width = `${most ? (100 * Math.abs(Number(row.value) || 0)) / most : 0}%`;
    share.append(bar);
    const value = document.createElement("td");
    value.className = "num";
    if (row.value === null) {
      value.textContent = number(null);
      value.title = reasonWords(row.reason);
    } else {
      const why = document.createElement("button");
      const { by } = this.model;
      why.type = "button";
      why.className = "link";
      why.textContent = number(row.value, unit);
      why.dataset.opens = ofRow(by, row.key);
      why.setAttribute("aria-label", `${why.textContent}, explain`);
      why.addEventListener("click", () => this.onWhy(by, row.key));
      value.append(why);
    }
    line.append(head, share, value);
    return line;
  }
}

const label = (row) => String(row.label || row.key || "(empty)");
