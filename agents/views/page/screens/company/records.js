/** Records: those that are called as one of the company's keys, and one that a person looks up, as of the moment. */

import { fill, make, redraw } from "../../element.js";
import { card, moment, nothing } from "../../pieces.js";
import * as words from "../../words.js";

let type, id, found;

/** The card; onLook(text) with "type/id", or "" for none. */
export function recordCard(onLook) {
  type = make("select", { id: "record-type" });
  id = make("input", { id: "record-id", type: "text", autocomplete: "off", spellcheck: "false", placeholder: "its id" });
  found = make("div", { id: "records-list" });
  const form = make("form", { class: "controls", autocomplete: "off", onsubmit: (event) => {
    event.preventDefault();
    onLook(id.value.trim() ? `${type.value}/${id.value.trim()}` : "");
  } },
  make("div", { class: "field" }, make("label", { for: "record-type", text: "Type" }), type),
  make("div", { class: "field grow" }, make("label", { for: "record-id", text: "Id" }), id),
  make("div", { class: "field end" }, make("button", { text: "Look up" })));
  return card("records", "Records", {}, form, found);
}

export function drawRecords(now, { types, records, found: answers }) {
  const names = (types.said?.records ?? []).map((one) => [one.type, words.sentence(one.type)]);
  const wanted = now.own.record ?? "";
  type.form.hidden = names.length === 0;
  fill(type, names, wanted.split("/")[0] || names[0]?.[0] || "");
  if (document.activeElement !== id) id.value = wanted.split("/").slice(1).join("/");
  const asked = wanted.includes("/");
  const rows = records.map(([of, as], i) => ({ type: of, id: as, ...answers[i] })).filter((one) => one.said && (one.said.value !== null || one.said.reason === "deleted" || `${one.type}/${one.id}` === wanted));
  if (types.why) redraw(found, nothing(types.why.title));
  else if (!names.length) redraw(found, nothing("The bundle declares no records."));
  else if (!rows.length) redraw(found, nothing(asked ? "There is no such type of record." : "No record is called as one of this company's keys.", "A record can be looked up by its type and id."));
  else redraw(found, rows.map((one) => record(now, one)));
}

function record(now, { type: of, id: as, said }) {
  const gone = { deleted: "It was deleted by then.", before_start: "It was not there yet.", no_events: "There is no such record." }[said.reason] ?? words.reasonWords(said.reason);
  return make("article", { class: "record", data: { record: `${of}/${as}` }, "aria-label": `${words.sentence(of)} ${as}` },
    make("h4", { text: `${words.sentence(of)} ${as}` }),
    said.since ? make("p", { class: "muted" }, "so since ", moment(said.since, now.tz), ", known ", moment(said.known, now.tz)) : null,
    said.value === null ? make("p", { text: gone })
      : make("dl", {}, Object.entries(said.value).map(([name, value]) => make("div", {}, make("dt", { text: words.sentence(name) }), make("dd", { text: value !== null && typeof value === "object" ? JSON.stringify(value) : value === null ? "–" : String(value) })))));
}
