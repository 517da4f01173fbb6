/** A company's latest signals: what its events meant, the newest first. */

import { make } from "../../element.js";
import { moment, nothing } from "../../pieces.js";
import * as words from "../../words.js";

const FIELDS_MAX = 4;

export function signals(now, { said, why }) {
  if (why) return nothing(why.status === 404 ? "This worker does not list signals." : why.title);
  if (!said.signals.length) return nothing("There are no signals before this moment.", "A signal is an event that a rule of the bundle made something of.");
  const more = said.limited ?? (said.next ? "There are earlier ones." : "");
  return [make("ul", { class: "signals" }, said.signals.map((one) => make("li", { data: { event: one.id, position: one.position } },
    moment(one.time, now.tz),
    make("span", {}, one.signals.map((each) => make("span", { class: "tag", text: words.sentence(each.name) })),
      make("span", { class: "muted", text: ` ${fields(one.signals)}` })),
    make("span", { class: "muted from" }, `${one.source} ${one.id} `, make("code", { text: one.position }))))),
  more ? make("p", { class: "muted", text: more }) : null];
}

/** The fields of an event's signals in short, each once. */
function fields(all) {
  const told = new Map(all.flatMap((one) => Object.entries(one.fields)));
  const some = [...told].slice(0, FIELDS_MAX).map(([name, value]) => `${name} ${typeof value === "object" ? JSON.stringify(value) : value}`);
  return told.size > FIELDS_MAX ? `${some.join(", ")}, …` : some.join(", ");
}
