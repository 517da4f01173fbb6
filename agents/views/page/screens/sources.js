/** The sources of the overview: when each was heard last, and whether it keeps what its contract promises. */

import { make } from "../element.js";
import { moment, nothing } from "../pieces.js";
import * as words from "../words.js";

/** What /v1/quality says, or null where the worker has no such call. */
export function sources(quality, tz) {
  if (quality === null) return nothing("This worker does not tell how fresh its sources are.");
  const rows = quality.sources ?? [];
  if (!rows.length) return nothing("No source is declared yet.", "Sources and what they promise are declared in the bundle.");
  return make("ul", { class: "sources" }, rows.map((one) => make("li", { data: { source: one.source } },
    make("p", { class: "name", text: one.source }),
    make("p", { class: "muted" }, one.owner ? `${one.owner} · ` : "", "last heard ", moment(one.last_known ?? one.last ?? null, tz)),
    ...(one.breaches ?? []).map((breach) => make("p", { class: "error", text: words.sentence(breach.kind ?? String(breach)) })))));
}
