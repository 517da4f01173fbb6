/** Parts: what several screens are put together from: buttons, fields, lists of terms, tables, refusals. */

import { make } from "./element.js";

/** A button that does something here; what leads elsewhere is a link. */
export function button(text, act, attributes = {}) {
  return make("button", { type: "button", class: "quiet", ...attributes, text, onclick: act });
}

/** A control with its label above it. */
export function labelled(text, control, attributes = {}) {
  return make("div", { class: "field", ...attributes }, make("label", { for: control.id, text }), control);
}

/** A list of terms, pairs [term, what it is]; pairs without a what are left out. */
export function terms(pairs) {
  const said = pairs.filter(([, what]) => what !== null && what !== undefined && what !== false && what !== "");
  return make("dl", { class: "terms" }, said.map(([term, what]) => make("div", {}, make("dt", { text: term }), make("dd", {}, what))));
}

/** A table that scrolls by itself where it is too wide.  columns: {head, num}; rows: lists of cells, or rows that are made
 *  already; the first cell of a list heads its row. */
export function table(caption, columns, rows, attributes = {}) {
  const cell = (what, i) => make(i ? "td" : "th", { scope: i ? null : "row", class: columns[i].num ? "num" : null }, what);
  const body = rows.map((row) => (Array.isArray(row) ? make("tr", {}, row.map(cell)) : row));
  return make("div", { class: "wide", tabindex: "0", role: "region", "aria-label": caption },
    make("table", attributes,
      make("thead", {}, make("tr", {}, columns.map(({ head, num }) => make("th", { scope: "col", class: num ? "num" : null, text: head })))),
      make("tbody", {}, body)));
}

/** What was refused and what helps, where a part of a screen should stand. */
export function refusal({ title, detail, guess, fix }) {
  return make("div", { class: "refusal", role: "alert" },
    make("p", { class: "refusal-title", text: title }),
    detail && detail !== title ? make("p", { text: detail }) : null,
    guess ? make("p", { text: `Did you mean ${guess}?` }) : null,
    fix ? make("p", { class: "muted", text: fix }) : null);
}

/** A call's answer, or {problem} where it was refused for good; what passes by (restoring, no connection) is thrown on. */
export async function settled(call) {
  try {
    return await call;
  } catch (error) {
    if (error.name === "AbortError" || !("retryMs" in error) || error.retryMs !== null) throw error;
    const { message, detail, guess, fix, status } = error;
    return { problem: { title: message, detail, guess, fix, status } };
  }
}
