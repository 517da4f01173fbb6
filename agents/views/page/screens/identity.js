/**
 * Identity: what is one thing and why, what waits for a decision, and decisions by hand.
 *
 *     ?look=key:value      ->  the thing it stands for, its keys, the chain of links        as of the slider's time
 *     ?do=link&keys=…      ->  what it would do (dry_run)  ->  button  ->  a record in the log        always of now
 *
 * What would happen is in the address, so a colleague can look at it first; that it happens is a button, and the button
 * works only for what is shown.
 */

import { post } from "../api.js";
import { Decide } from "../decide.js";
import { Dialog } from "../dialog.js";
import { fill, make, redraw } from "../element.js";
import { button, labelled, refusal, settled, table, terms } from "../parts.js";
import { askRaw, rawEvent } from "../raw.js";
import { fromRfc3339, inWords, rfc3339 } from "../time.js";
import { sentence } from "../words.js";

const ENTITIES = ["company", "person", "device"];
const REVIEW = 50;
const $ = (id) => document.getElementById(id);
let decide, dialog, turn;

export default { name: "identity", title: "Identity", build, heading, show, ask, draw, failed };

function heading(question) {
  return question.own.look ? `Identity · ${question.own.look}` : "Identity";
}

function entityOf(question) {
  return question.own.entity || "company";
}

async function ask(question, { get, signal }) {
  const { look = "", event } = question.own;
  const entity = entityOf(question);
  const [, kind, value] = /^([^:]+):([\s\S]+)$/.exec(look) ?? [];
  // As shown is what was decided by then; corrected and latest know what is decided now (semantics: bases).
  const at = question.basis === "as_shown" ? { at: rfc3339(question.at) } : {};
  const decision = decide.asked(question);
  const [thing, effect, queue, raw] = await Promise.all([
    kind ? settled(get("/v1/identity/resolve", { entity, key: kind, value, ...at }, signal)) : null,
    decision && settled(post(`/v1/identity/${decision.what}`, decision.body, { dry_run: "true" }, signal)),
    settled(get("/v1/identity/review", { limit: REVIEW }, signal)),
    event ? askRaw(event, { get, signal }) : null,
  ]);
  return { thing, effect, queue, raw };
}

function build(root, { change }) {
  // The address is what was drawn last: each part changes its own of it.
  let now = {};
  turn = (part) => change({ own: { ...now, ...part } });
  build.hold = (own) => { now = own; };
  decide = new Decide(turn);
  dialog = new Dialog("event", () => turn({ event: "" }));
  const look = make("input", { id: "look", type: "text", autocomplete: "off", spellcheck: "false", placeholder: "carrier_code:UA", list: "keys", "aria-describedby": "look-hint" });
  const entity = make("select", { id: "entity", onchange: () => $("look").value.trim() && search() });
  const search = () => turn({ look: look.value.trim(), entity: entity.value === "company" ? "" : entity.value });
  root.append(
    make("section", { class: "card", "aria-labelledby": "look-title" },
      make("div", { class: "row" }, make("h2", { id: "look-title", text: "Look up a key" }), make("p", { id: "look-as-of", class: "muted" })),
      make("form", { class: "controls", autocomplete: "off", onsubmit: (event) => { event.preventDefault(); search(); } },
        labelled("Key", look, { class: "field grow" }), labelled("of a", entity), make("div", { class: "field end" }, make("button", { id: "look-go", text: "Look up" }))),
      make("p", { id: "look-hint", class: "muted", text: "A kind of key and its value, as the sources write them." }),
      make("datalist", { id: "keys" }),
      make("div", { id: "thing" })),
    decide.element,
    make("section", { class: "card", "aria-labelledby": "review-title" },
      make("h2", { id: "review-title", text: "Waiting for a decision" }),
      make("p", { class: "muted", text: "Links that events proposed and a rule refused. They are as of now." }),
      make("div", { id: "review" })),
    dialog.element);
}

function show(root, question, { world }) {
  build.hold(question.own);
  const { look = "" } = question.own;
  if (document.activeElement !== $("look")) $("look").value = look;
  fill($("entity"), ENTITIES.map((one) => [one, sentence(one)]), entityOf(question), sentence);
  $("look-as-of").textContent = question.basis === "as_shown" ? `As decided by ${inWords(question.at, question.tz)}` : "As decided now";
  decide.show(question);
  const keys = (world?.companies ?? []).flatMap((one) => one.keys ?? []);
  const listed = keys.slice(0, 1000).join("\n");
  if ($("keys").dataset.listed !== listed) {
    $("keys").dataset.listed = listed;
    $("keys").replaceChildren(...keys.slice(0, 1000).map((key) => make("option", { value: key })));
  }
}

function draw(root, question, answers) {
  const { tz, own } = question;
  redraw($("thing"), thingOf(question, answers.thing));
  decide.draw(question, answers.effect);
  redraw($("review"), queueOf(answers.queue, tz));
  if (own.event) dialog.show(own.event, own.event, "A raw event", rawEvent(own.event, answers.raw, tz));
  else dialog.hide();
}

function failed(root, question, problem) {
  const words = problem ? make("p", { class: "muted", text: "Not known just now." }) : null;
  redraw($("thing"), question.own.look ? words : null);
  decide.draw(question, null);
  redraw($("review"), words);
}

// ---- what it shows -----------------------------------------------------------------------------------------------

function thingOf(question, thing) {
  const { look = "" } = question.own;
  if (!look) return make("p", { class: "muted", text: "Nothing is looked up yet." });
  if (thing === null) return refusal({ title: "This is no key.", fix: "Write the kind, a colon and the value: carrier_code:UA" });
  if (thing.problem) return refusal(thing.problem);
  const alone = thing.keys.length < 2;
  const rows = thing.keys.map((key) => [[key, key === look ? make("span", { class: "tag", text: "looked up" }) : null],
    alone ? "" : button("Take it out", () => turn({ do: "unlink", keys: key }), { "data-key": `out ${key}`, "aria-label": `Take ${key} out of ${thing.name}` })]);
  return make("div", { id: "found", data: { metakey: thing.metakey, leaf: thing.leaf, keys: thing.keys.join("\n") } },
    make("h3", { text: thing.name }),
    terms([
      ["MetaKey", make("code", { text: thing.metakey })],
      ["Of this key", thing.leaf === thing.metakey ? "the same: the thing is called by it" : make("code", { text: thing.leaf })],
    ]),
    table("The keys of this thing", [{ head: "Key" }, { head: "Decision" }], rows, { class: "of-thing" }),
    make("h3", { text: "Why" }),
    thing.links.length
      ? make("ol", { class: "links" }, thing.links.map((link) => make("li", {}, linkOf(link, question.tz, " is "))))
      : make("p", { class: "muted", text: alone ? "No link joins this key with another." : "This key is the one that the thing is called by; the others are linked to it." }),
    make("p", { class: "further" }, button("Join it with another", () => turn({ do: "link", keys: `${look}\n` }), { id: "join" })));
}

/** A link in words, and the record that made it. */
function linkOf(link, tz, word) {
  const [a, b] = [link.keys[0] ?? link.a, link.keys[1] ?? link.b];
  const who = link.how === "by hand" ? `decided by hand${link.by ? ` by ${link.by}` : ""}` : "an event named both";
  return [
    make("span", { class: "joined" }, make("strong", { text: a }), word, make("strong", { text: b })),
    make("span", { class: "muted block" }, `${who}, known ${inWords(fromRfc3339(link.known_from), tz)}, `,
      button(link.record, () => turn({ event: link.record }), { class: "link", data: { key: link.record, opens: link.record }, "aria-label": `The raw event ${link.record}` })),
  ];
}

function queueOf(queue, tz) {
  if (queue.problem) return refusal(queue.problem);
  if (!queue.review.length) return make("p", { id: "review-empty", class: "muted", text: "Nothing waits." });
  return [
    make("ul", { class: "queue" }, queue.review.map((one) => make("li", { data: { why: one.why } },
      make("div", {}, linkOf(one, tz, " and "), make("span", { class: "block", text: `Refused: ${one.means}.` })),
      one.keys.every(Boolean)
        ? button("See what joining does", () => turn({ do: "link", entity: one.entity === "company" ? "" : one.entity, keys: one.keys.join("\n") }), { "data-key": `join ${one.record}`, "aria-label": `See what joining ${one.keys.join(" and ")} does` })
        : null))),
    queue.next ? make("p", { class: "muted", text: `These are the first ${queue.review.length}.` }) : null,
  ];
}
