/**
 * Compare: what changed a number between two moments, or between what was shown and what is known, and why.
 *
 *     before (?since=, ?since_basis=)  ->  after (the page's moment and basis)  ->  causes that add up to the difference
 */

import { fill, make, redraw } from "./element.js";
import { button, labelled, refusal, settled, table } from "./parts.js";
import { asked } from "./question.js";
import { DAY, QUARTER, floorTo, fromRfc3339, fromText, inWords, rfc3339, toText } from "./time.js";
import { number, reasonWords, sentence, unitWords } from "./words.js";

const ROWS = 20;
const CAUSES = {
  late: "Became known in between",
  amended: "Another revision counts",
  voided: "Taken back",
  merged: "Came with a merge",
  unmerged: "Left with an unmerge",
  definition: "The metric is defined otherwise",
  period: "Lies in the time of one side only",
};
const BASES = [["as_shown", "as it was shown then"], ["corrected", "as known now"]];
const WRITE = "Write a moment such as 2013-05-12 12:00, or 2013-05-12T12:00:00Z.";

/** {at: ms, basis} of the side before; null when nothing is compared. */
export function since(question) {
  const at = fromRfc3339(question.own.since);
  return at === null ? null : { at: floorTo(at, QUARTER), basis: question.own.since_basis === "corrected" ? "corrected" : "as_shown" };
}

/** The answer of `/diff`, or {problem}; null: nothing is compared. */
export async function askCompared(question, { get, signal }) {
  const before = since(question);
  if (before === null) return null;
  const { basis, at, ...common } = asked(question);
  const after = question.at === null ? {} : { to: at, to_basis: basis };
  const parameters = { ...common, at: rfc3339(before.at), basis: before.basis, ...after, window: question.window, limit: ROWS };
  return settled(get(`/v1/metrics/${encodeURIComponent(question.metric)}/diff`, parameters, signal));
}

/** The card.  turn({since, since_basis}): changes the side before;  open(position): shows a raw event. */
export class Compare {
  constructor(turn, open) {
    Object.assign(this, { turn, open });
    this.question = null;
    this.text = make("input", { id: "since", type: "text", autocomplete: "off", spellcheck: "false", placeholder: "2013-05-12 12:00", "aria-describedby": "since-error" });
    this.basis = make("select", { id: "since-basis", onchange: () => since(this.question) && this.turn({ since_basis: this.basis.value }) });
    this.error = make("p", { id: "since-error", class: "error", role: "alert", hidden: true });
    this.stop = button("Stop comparing", () => this.turn({ since: "", since_basis: "" }), { id: "since-stop" });
    this.presets = [["What was shown then", 0], ["A day before", 1], ["A week before", 7], ["Four weeks before", 28]]
      .map(([text, days]) => button(text, () => this.preset(days)));
    this.result = make("div", { id: "difference" });
    this.element = make("section", { class: "card", id: "compare", "aria-labelledby": "compare-title" },
      make("div", { class: "row" }, make("h2", { id: "compare-title", text: "What changed" }), make("div", { class: "presets", role: "group", "aria-label": "Compare with" }, this.presets)),
      make("form", { class: "controls", autocomplete: "off", onsubmit: (event) => this.typed(event) },
        labelled("Compared with", this.text), labelled("taken", this.basis),
        make("div", { class: "field end" }, make("button", { id: "since-go", text: "Compare" })), make("div", { class: "field end" }, this.stop)),
      this.error, this.result);
  }

  /** What follows from the question alone. */
  show(question, range) {
    Object.assign(this, { question, range });
    const before = since(question);
    if (document.activeElement !== this.text) this.text.value = before === null ? "" : toText(before.at, question.tz);
    fill(this.basis, BASES, before?.basis ?? (this.basis.value || "as_shown"));
    this.stop.hidden = before === null;
    this.presets[0].hidden = question.basis !== "corrected";  // of what is shown as it was, that is itself
    this.fault(question.own.since && before === null ? WRITE : "");
  }

  draw(question, answer, unit, units) {
    this.result.dataset.compared = answer === null ? "" : String(!answer.problem);
    if (answer === null) this.result.replaceChildren();
    else if (answer.problem) redraw(this.result, refusal(answer.problem));
    else {
      const open = this.result.querySelector("details")?.open;
      redraw(this.result, difference(answer, { tz: question.tz, unit, units, open: this.open }));
      const events = this.result.querySelector("details");
      if (events && open) events.open = true;
    }
  }

  preset(days) {
    const end = this.question.at ?? floorTo(Math.min(Date.now(), this.range?.to ?? Date.now()), QUARTER);
    this.turn({ since: rfc3339(end - days * DAY), since_basis: days ? this.basis.value : "as_shown" });
  }

  typed(event) {
    event.preventDefault();
    const at = fromText(this.text.value, this.question.tz);
    if (at === null) this.fault(WRITE);
    else this.turn({ since: rfc3339(floorTo(at, QUARTER)), since_basis: this.basis.value });
  }

  fault(words) {
    this.error.textContent = words;
    this.error.hidden = !words;
    if (words) this.text.setAttribute("aria-invalid", "true");
    else this.text.removeAttribute("aria-invalid");
  }
}

function difference(answer, { tz, unit, units, open }) {
  const { before, after, operands, rows } = answer;
  const change = before.value === null || after.value === null ? null : Number(after.value) - Number(before.value);
  const causes = operands.flatMap((one) => Object.entries(one.causes).map(([cause, told]) => ({ ...told, cause, metric: one.metric })));
  const many = operands.length > 1;
  const broken = operands.filter((one) => one.adds_up === false).map((one) => one.metric);
  const columns = [{ head: "Why" }, ...(many ? [{ head: "Of" }] : []), { head: "Came", num: true }, { head: "Went", num: true }, { head: "Changed", num: true }, { head: "Together", num: true }];
  const reasons = causes.map((one) => [because(one.cause), ...(many ? [sentence(one.metric)] : []), number(one.added), number(one.removed), number(one.changed), signed(one.sum, units(one.metric))]);
  const events = [{ head: "Event" }, { head: "Why" }, { head: "Time" }, { head: "Known" }, { head: "Together", num: true }];
  return [
    make("div", { class: "sides" }, side("before", before, { tz, unit }), side("after", after, { tz, unit }),
      change === null ? null : make("div", { id: "change", data: { value: String(change) } },
        make("p", { class: "muted", text: "Difference" }), make("p", { class: "side-number", text: signed(change, unit) }))),
    causes.length ? table("Why it changed, in events", columns, reasons, { id: "causes" })
      : make("p", { class: "muted", text: "The same events count on both sides." }),
    broken.length ? make("p", { class: "error", role: "alert", text: `The causes do not add up for ${broken.join(", ")}: please report this.` }) : null,
    answer.limited ? make("p", { class: "muted", text: `${sentence(answer.limited)}.` }) : null,
    rows.length ? make("details", {},
      make("summary", { text: answer.next ? `The first ${rows.length} of the events that made the difference` : "The events that made the difference" }),
      table("The events that made the difference", events, rows.map((row) => [
        button(`${row.source} / ${row.id}`, () => open(row.position), { class: "link", data: { key: row.position } }),
        because(row.cause), inWords(fromRfc3339(row.time), tz), inWords(fromRfc3339(row.known), tz), signed(row.adds, units(row.metrics[0]))]))) : null,
  ];
}

function side(name, end, { tz, unit }) {
  const when = end.basis === "latest" ? "Now" : `${inWords(fromRfc3339(end.at), tz)}, ${end.basis === "as_shown" ? "as shown" : "corrected"}`;
  return make("div", { id: `side-${name}`, data: { value: end.value === null ? "" : String(end.value), basis: end.basis } },
    make("p", { class: "muted", text: when }),
    make("p", { class: "side-number" }, number(end.value, unit), " ", make("span", { class: "muted", text: end.value === null ? reasonWords(end.reason) : unitWords(unit) })));
}

const because = (cause) => CAUSES[cause] ?? sentence(cause);

function signed(value, unit) {
  const points = unit === "ratio";
  const said = new Intl.NumberFormat("en", { signDisplay: "exceptZero", maximumFractionDigits: 2 }).format(points ? 100 * Number(value) : Number(value));
  return points ? `${said} points` : said;
}
