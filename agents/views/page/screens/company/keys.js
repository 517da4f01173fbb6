/** What a company is known as: each alternate key, who said it first, and the chain of links that makes it this company. */

import { make } from "../../element.js";
import { moment, nothing } from "../../pieces.js";

export function knownAs(now, company, found) {
  if (!company.alternate_keys.length) return nothing("It has no alternate keys.");
  return make("ul", { class: "keys" }, company.alternate_keys.map((one) => key(now, company, one, found.get(one.metakey))));
}

function key(now, company, one, way) {
  const later = now.basis === "as_shown" && Date.parse(one.first_known) > now.at;
  const name = `${one.key}:${one.value}`;
  return make("li", { data: { keyname: name, later: later ? "" : null, apart: way ? null : "" } },
    make("p", { class: "name" }, make("span", { class: "muted", text: one.key }), " ", make("strong", { text: one.value }),
      one.label ? make("span", { class: "tag", text: "display name" }) : null, later ? make("span", { class: "tag", text: "not known then" }) : null),
    make("p", { class: "muted" }, `first from ${one.source}, `, moment(one.first_known, now.tz)),
    why(now, one, company, way));
}

/** Why a key is this company: it names it itself, or a chain of links leads there. */
function why(now, one, company, way) {
  if (one.metakey === company.metakey) return make("p", { class: "muted", text: "It gives the company its MetaKey." });
  if (!way) return make("p", { class: "muted", text: "At this moment nothing linked it to the company." });
  return make("ol", { class: "chain", "aria-label": `Why ${one.key}:${one.value} is this company` }, way.map(({ from, to, link }) => make("li", { data: { record: link.record } },
    make("span", { text: `${from ?? "?"} = ${to ?? "?"}` }),
    make("span", { class: "muted" }, ` ${link.how}${link.by ? ` by ${link.by}` : ""}, `, moment(link.known_from, now.tz), ", ", make("code", { text: link.record })))));
}
