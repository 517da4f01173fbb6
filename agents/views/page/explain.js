/**
 * Explain: why a number is what it is, in a dialog: the events behind it, added again, and each of them as it came.
 *
 *     number · point · row  ->  ?explain=…  ->  the events behind it  ->  ?event=…  ->  the raw record
 *
 * The address says what is explained, so a link shows a colleague the same; closing the dialog changes the address back.
 */

import { stepInWords } from "./chart.js";
import { Dialog } from "./dialog.js";
import { make } from "./element.js";
import { content } from "./live.js";
import { button, refusal, settled, table } from "./parts.js";
import { asked } from "./question.js";
import { askRaw, rawEvent } from "./raw.js";
import { fromRfc3339, inWords, rfc3339 } from "./time.js";
import { number, reasonWords, sentence, unitWords, windowWords } from "./words.js";

const PAGE = 50;
const UNKNOWN = { title: "This page does not know what to explain.", fix: "Close this and press a number." };

/** What the address calls what is explained: `value`, `point/START/END`, `row/BY/KEY`. */
export const VALUE = "value";
export const ofPoint = ({ start, end }) => `point/${rfc3339(start)}/${rfc3339(end)}`;
export const ofRow = (by, key) => `row/${by}/${key}`;

/** The parameters of `/explain` for what the question explains; null when it explains nothing that there is. */
export function explained(question) {
  const common = asked(question);
  const [what, a, ...rest] = (question.own.explain ?? "").split("/");
  if (what === VALUE) return { ...common, window: question.window };
  if (what === "point" && fromRfc3339(a) !== null && fromRfc3339(rest[0]) !== null) return { ...common, from: a, to: rest[0] };
  if (what !== "row" || !a) return null;
  const key = rest.join("/");
  return { ...common, window: question.window, ...(a === "company" ? { company: key } : { [`dim.${a}`]: key }) };
}

/** {explain, raw}: answers, or {problem}; null: not asked. */
export async function askExplained(question, { get, signal }) {
  const parameters = explained(question);
  if (parameters === null) return { explain: null, raw: null };
  const { event } = question.own;
  const [explain, raw] = await Promise.all([
    settled(get(pathOf(question), { ...parameters, limit: PAGE }, signal)),
    event ? askRaw(event, { get, signal }) : null,
  ]);
  return { explain, raw };
}

/** The dialog.  get: for further pages;  turn({explain, event}): changes what of the address is about the explanation. */
export class Explain {
  constructor(get, turn) {
    Object.assign(this, { get, turn });
    this.drawn = "";
    this.dialog = new Dialog("explain", () => turn({ explain: "", event: "" }));
    this.element = this.dialog.element;
  }

  /** Shows what the question explains; units(metric): the unit of a metric. */
  show(question, answers, units) {
    const { explain = "", event = "" } = question.own;
    if (!explain) {
      this.drawn = "";
      this.dialog.hide();
      return;
    }
    const said = content([question, answers]);
    if (said === this.drawn && this.element.open) return;  // live, and nothing new: further pages stay
    this.drawn = said;
    if (event) this.dialog.show(explain, event, "A raw event", this.event(question, answers.raw));
    else {
      const answer = answers.explain ?? { problem: UNKNOWN };
      this.dialog.show(explain, "", titleOf(question, answer), answer.problem ? refusal(answer.problem) : this.sum(question, answer, units));
    }
  }

  sum(question, answer, units) {
    const { operands, rows, unit, value } = answer;
    const formula = operands.length > 1 || operands[0]?.metric !== question.metric;
    const of = (row) => eventRow(row, { tz: question.tz, units, formula, open: (position) => this.turn({ event: position }) });
    const columns = [{ head: "Event" }, { head: "Adds", num: true }, { head: "Time" }, { head: "Company" }, ...(formula ? [{ head: "Counts for" }] : []), { head: "Known" }];
    const events = table("The events behind it, by time", columns, rows.map(of), { class: "explain-events" });
    const parts = operands.map((one) => [sentence(one.metric), number(one.value, units(one.metric)), number(one.counted), number(one.recomputed, units(one.metric))]);
    return [
      make("p", { id: "explain-sum", class: "explain-sum", data: { agrees: String(answer.agrees), value: text(value), recomputed: text(answer.recomputed) } },
        make("strong", { text: [number(value, unit), value === null ? "" : unitWords(unit)].filter(Boolean).join(" ") }), ` – ${agreement(answer)}`),
      value === null ? make("p", { text: reasonWords(answer.reason) }) : null,
      answer.limited ? make("p", { class: "muted", text: `${sentence(answer.limited)}.` }) : null,
      formula ? table("What the formula is made of", [{ head: "Metric" }, { head: "Value", num: true }, { head: "Events", num: true }, { head: "Added again", num: true }], parts, { class: "operands" }) : null,
      rows.length ? events : make("p", { class: "muted", text: "No events stand behind it." }),
      answer.next ? this.further(question, answer.next, events.querySelector("tbody"), of) : null,
    ];
  }

  /** The button for the page behind; what it brings is not in the address. */
  further(question, first, rows, of) {
    let next = first;
    const told = make("span", { class: "muted", role: "status" });
    const more = button("Further events", async () => {
      more.disabled = true;
      try {
        const page = await this.get(pathOf(question), { ...explained(question), limit: PAGE, next });
        rows.append(...page.rows.map(of));
        next = page.next;
        more.hidden = !next;
        told.textContent = `${rows.rows.length} events are shown.`;
      } catch (error) {
        told.textContent = error.message;
      }
      more.disabled = false;
    }, { id: "explain-more" });
    return make("p", { class: "further" }, more, told);
  }

  event(question, raw) {
    return [
      make("p", {}, button("← The events behind the number", () => this.turn({ event: "" }), { id: "explain-back" })),
      rawEvent(question.own.event, raw, question.tz),
    ];
  }
}

function eventRow(row, { tz, units, formula, open }) {
  const unit = units(row.metrics[0]);
  const said = `${row.type}${row.revision ? `, revision ${row.revision}` : ""}, by the rule ${row.rule}`;
  return make("tr", { data: { position: row.position, adds: text(row.adds) } },
    make("th", { scope: "row" },
      button(`${row.source} / ${row.id}`, () => open(row.position), { class: "link", data: { key: row.position } }),
      make("span", { class: "muted block", text: said })),
    make("td", { class: "num", text: number(row.adds, unit === "ratio" ? "" : unit) }),
    make("td", { class: "when", text: inWords(fromRfc3339(row.time), tz) }),
    make("td", { text: row.key ?? row.company }),
    formula ? make("td", { text: row.metrics.map(sentence).join(", ") }) : null,
    make("td", { class: "when", text: inWords(fromRfc3339(row.known), tz) }));
}

function titleOf(question, answer) {
  const name = `Why this: ${sentence(question.metric).toLowerCase()}`;
  const [what, a, ...rest] = question.own.explain.split("/");
  if (what === "point" && !answer.problem) return `${name}, ${stepInWords({ start: fromRfc3339(a), end: fromRfc3339(rest[0]) }, question.tz)}`;
  if (what === "row" && a !== "company") return `${name}, ${sentence(a).toLowerCase()} ${rest.join("/")}`;
  if (what === "row") return `${name}, ${answer.rows?.[0]?.key ?? rest.join("/")}`;
  return `${name}, ${windowWords(question.window).toLowerCase()}`;
}

function agreement({ agrees, operands }) {
  const events = operands.reduce((sum, one) => sum + one.counted, 0);
  const behind = `${number(events)} ${events === 1 ? "event is" : "events are"} behind it`;
  if (agrees === true) return `${behind}. Added again just now they give the same.`;
  if (agrees === false) return `${behind}. Added again just now they do not give this number: please report this.`;
  return `${behind}, too many to add them again here.`;
}

const pathOf = (question) => `/v1/metrics/${encodeURIComponent(question.metric)}/explain`;
const text = (value) => (value === null || value === undefined ? "" : String(value));
