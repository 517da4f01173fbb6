/** The sources of the overview: when each was heard last, and whether it keeps what its contract promises. */

import { make } from "../element.js";
import { moment, nothing } from "../pieces.js";
import { lengthInWords } from "../time.js";
import * as words from "../words.js";

const STATES = {
  ok: ["keeps its promises", "achieved"],
  stale: ["stale", "lapsed"],
  silent: ["silent", "missed"],
  schema: ["breaks its schema", "missed"],
  unmatched: ["too many unmatched", "lapsed"],
  waiting: ["nothing came yet", "pending"],
  unwatched: ["promises nothing", "pending"],
};

/** What /v1/quality says, or null where the worker has no such call. */
export function sources(quality, tz) {
  if (quality === null) return nothing("This worker does not tell how fresh its sources are.");
  const rows = quality.sources;
  if (!rows.length) return nothing("No source is declared yet.", "Sources and what they promise are declared in the bundle.");
  return make("ul", { class: "sources" }, rows.map((one) => source(one, tz)));
}

function source(one, tz) {
  const [word, look] = STATES[one.state] ?? ["not known yet", "pending"];
  return make("li", { data: { source: one.source, state: one.state ?? "" } },
    make("div", { class: "row" }, make("p", { class: "name", text: one.source }), make("span", { class: "pill", data: { state: look }, text: word })),
    make("p", { class: "muted" }, one.owner ? `${one.owner} · ` : "nobody answers for it · ", ...heard(one.freshness, tz)),
    one.since ? make("p", { class: "error" }, `${word} since `, moment(one.since, tz)) : null,
    one.volume.events === null ? null : make("p", { class: one.volume.ok === false ? "error" : "muted", text: `${words.number(one.volume.events)} events in ${lengthInWords(one.volume.per_ms)}, ${words.number(one.volume.min)} promised` }),
    one.unmatched.share === null ? null : make("p", { class: one.unmatched.ok === false ? "error" : "muted",
      text: `${words.number(one.unmatched.share, "ratio")} of no known company, ${words.number(one.unmatched.max, "ratio")} at most` }),
    one.schema.refused ? make("p", { class: one.schema.ok === false ? "error" : "muted", text: `${words.number(one.schema.refused)} refused within a day` }) : null);
}

function heard({ newest_known: last, age_ms: age, expected_ms: promised }, tz) {
  if (last === null) return ["not heard yet"];
  const silence = age === null ? "" : `, ${lengthInWords(age)} ago`;
  return ["last heard ", moment(last, tz), promised === null ? silence : `${silence} of ${lengthInWords(promised)} allowed`];
}
