/**
 * Decide: keys are joined or taken apart by hand, after their effect was seen.
 *
 *     what, keys  ->  ?do=…&keys=…  ->  dry_run: things and numbers before and after  ->  the button  ->  a receipt
 *
 * The button works for what is shown and nothing else: with another word in the field it waits for another look.  What
 * is decided is an event of the log; the screen asks with its receipt until the answers include it.
 */

import { Problem, get, post } from "./api.js";
import { make } from "./element.js";
import { button, labelled, refusal } from "./parts.js";
import { number, sentence } from "./words.js";

const WORDS = {
  link: { choice: "These are one thing", act: "Join them", done: "They are one thing now.", back: "unlink" },
  unlink: { choice: "These are not part of the rest", act: "Take them out", done: "They are apart now.", back: "link" },
};
const REFUSED = {
  unlinked: "A person has taken these apart.",
  unique: "Two values of a kind that is declared unique would be one thing.",
  limit: "There would be more values of a kind than its limit.",
  too_large: "There would be more keys than a thing may have.",
};
const BY_MAX = 256;

export class Decide {
  /** turn(part): changes what of the address is the screen's own. */
  constructor(turn) {
    this.turn = turn;
    this.seen = "";    // the decision whose effect is on the screen, as the address says it
    this.effect = null;
    this.sending = false;
    this.keys = make("textarea", { id: "decide-keys", rows: "3", autocomplete: "off", spellcheck: "false", "aria-describedby": "decide-hint", placeholder: "carrier_code:UA\nairline_name:United Air Lines Inc.", oninput: () => this.offer() });
    this.by = make("input", { id: "decide-by", type: "text", autocomplete: "name", maxlength: String(BY_MAX) });
    this.what = Object.keys(WORDS).map((one) => make("input", { type: "radio", name: "decide-what", value: one, onchange: () => this.offer() }));
    this.effectPlace = make("div", { id: "effect", "aria-live": "polite" });
    this.act = button(WORDS.link.act, () => this.send(), { id: "decide-act", class: "main", disabled: true });
    this.told = make("div", { id: "decide-told", role: "status" });
    this.element = make("section", { class: "card", "aria-labelledby": "decide-title" },
      make("h2", { id: "decide-title", text: "Decide by hand" }),
      make("form", { class: "decide", autocomplete: "off", onsubmit: (event) => this.look(event) },
        make("fieldset", { class: "switch" }, make("legend", { class: "hidden-label", text: "What is decided" }),
          this.what.map((radio) => make("label", {}, radio, make("span", { text: WORDS[radio.value].choice })))),
        labelled("Keys, one a line", this.keys, { class: "field grow" }),
        make("p", { id: "decide-hint", class: "muted", text: "Whatever happened before and is yet to come counts as decided; it can be taken back at any time." }),
        make("div", { class: "controls" }, make("div", { class: "field end" }, make("button", { id: "decide-look", text: "See what it does" })))),
      this.effectPlace,
      make("div", { class: "controls" }, labelled("Decided by (said in the log)", this.by), make("div", { class: "field end" }, this.act)),
      this.told);
  }

  /** {what, body} that the address asks to look at; null: nothing. */
  asked({ own }) {
    const keys = lines(own.keys);
    const what = own.do in WORDS ? own.do : "link";
    return keys.length ? { what, body: { entity: own.entity || "company", keys } } : null;
  }

  /** What follows from the question alone. */
  show(question) {
    const { own } = question;
    const said = `${own.do} ${own.entity} ${own.keys}`;
    if (this.said !== said) {
      this.said = said;
      this.keys.value = own.keys ?? "";
      for (const radio of this.what) radio.checked = radio.value === (own.do in WORDS ? own.do : "link");
      this.told.replaceChildren();
    }
    this.entity = own.entity || "company";
    this.offer();
  }

  /** effect: the answer of dry_run, {problem}, or null. */
  draw(question, effect) {
    const asked = this.asked(question);
    this.seen = effect && !effect.problem ? JSON.stringify(asked) : "";
    this.effect = effect;
    this.effectPlace.replaceChildren(...(asked === null || effect === null ? [] : [effect.problem ? refusal(effect.problem) : effectOf(effect)]));
    this.offer();
  }

  /** The button works when the effect of just these keys is on the screen, changes something, and is not refused. */
  offer() {
    const what = this.chosen();
    this.act.textContent = WORDS[what].act;
    const here = JSON.stringify({ what, body: { entity: this.entity, keys: lines(this.keys.value) } });
    const good = this.effect?.changes === true && this.effect.refused.length === 0;
    this.act.disabled = this.sending || this.seen === "" || here !== this.seen || !good;
  }

  chosen() {
    return this.what.find((one) => one.checked)?.value ?? "link";
  }

  look(event) {
    event.preventDefault();
    this.turn({ do: this.chosen(), keys: lines(this.keys.value).join("\n") });
  }

  async send() {
    const { what, body } = JSON.parse(this.seen);
    const back = undoing(what, body.keys, this.effect).join("\n");
    this.sending = true;
    this.offer();
    this.told.replaceChildren(make("p", { class: "muted", text: "Writing it to the log…" }));
    try {
      const by = this.by.value.trim();
      const { receipt } = await post(`/v1/identity/${what}`, by ? { ...body, by } : body);
      this.told.replaceChildren(make("p", { class: "muted", text: `It is in the log as ${receipt}. Waiting until the answers include it…` }));
      await get("/v1/metrics", { after: receipt });
      this.sending = false;
      this.turn({ do: "", keys: "", look: body.keys[0] });
      this.told.replaceChildren(
        make("p", { id: "decided", class: "done", data: { receipt, what }, text: WORDS[what].done }),
        make("p", {}, button("See what taking it back does", () => this.turn({ do: WORDS[what].back, keys: back }), { id: "decide-back" })));
    } catch (error) {
      if (!(error instanceof Problem)) throw error;
      this.told.replaceChildren(refusal({ title: error.message, detail: error.detail, fix: error.fix }));
    } finally {
      this.sending = false;
      this.offer();
    }
  }
}

/** The keys that take it back: of things that were joined all but the first leave whole, with every key they had; those
 *  that came apart are joined by one key each. */
function undoing(what, keys, { before, after }) {
  if (what === "unlink") return after.map((one) => one.keys[0]);
  return before.filter((one) => !one.keys.includes(keys[0])).flatMap((one) => one.keys);
}

const lines = (text) => [...new Set((text ?? "").split("\n").map((one) => one.trim()).filter(Boolean))];

function effectOf({ before, after, changes, refused, entity }) {
  if (refused.length) {
    return refusal({ title: "This would be refused.", detail: [...new Set(refused)].map((why) => REFUSED[why] ?? sentence(why)).join(" "), fix: "Take keys out first, or change what the definitions allow." });
  }
  if (!changes) return make("p", { id: "no-effect", class: "muted", text: "This changes nothing: it is so already." });
  return make("div", { class: "effect" },
    make("div", {}, make("h3", { text: "Now" }), make("ul", { class: "things", id: "effect-before" }, before.map(thing))),
    make("div", {}, make("h3", { text: "Then" }), make("ul", { class: "things", id: "effect-after" }, after.map(thing))),
    entity === "company" ? make("p", { class: "muted note", text: "Numbers are all-time, as of now; the past as it was shown stays as it is." }) : null);
}

function thing(one) {
  const metrics = Object.entries(one.metrics ?? {});
  return make("li", { data: { metakey: one.metakey } },
    make("strong", { text: one.name }),
    make("span", { class: "muted block", text: one.keys.join(" · ") }),
    metrics.length ? make("dl", { class: "small" }, metrics.map(([name, value]) => make("div", { data: { metric: name, value: value === null ? "" : String(value) } },
      make("dt", { text: sentence(name) }), make("dd", { text: number(value) })))) : null);
}
