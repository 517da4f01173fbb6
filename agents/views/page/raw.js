/** A raw event: the record at a position of the log, as it came, and what became of it. */

import { make } from "./element.js";
import { indented } from "./json.js";
import { refusal, settled, table, terms } from "./parts.js";
import { fromRfc3339, inWords } from "./time.js";
import { number, sentence } from "./words.js";

const POSITION = /^raw-events\/\d{1,9}@\d{1,18}$/;

/** {record, outcome} of a position: answers, or {problem}; null where the text is no position. */
export async function askRaw(position, { get, signal }) {
  if (!POSITION.test(position ?? "")) return null;
  const calls = [get(`/v1/events/${position}/record`, {}, signal), get(`/v1/events/${position}`, {}, signal)];
  const [record, outcome] = await Promise.all(calls.map(settled));
  return { record, outcome };
}

/** The elements that say it; `raw` is the answer of askRaw. */
export function rawEvent(position, raw, tz) {
  if (raw === null) return [refusal({ title: `“${position}” is not a position such as raw-events/3@1288.` })];
  const { record, outcome } = raw;
  const known = fromRfc3339(outcome.known);
  const signals = (outcome.signals ?? []).map((one) => [one.rule, pairs(one.fields)]);
  const failed = (outcome.failed_rules ?? []).map((one) => [one.rule, sentence(one.reason), one.detail]);
  return [
    terms([
      ["Position", position],
      ["Known", known === null ? null : inWords(known, tz)],
      ["Taken by the log", record.problem ? null : inWords(fromRfc3339(record.appended), tz)],
      ["What became of it", outcome.problem ? outcome.problem.title : sentence(outcome.outcome)],
      ["Why", [outcome.reason ? sentence(outcome.reason) : "", outcome.detail].filter(Boolean).join(": ")],
    ]),
    signals.length ? [make("h3", { text: "Signals of it" }), table("Signals of it", [{ head: "Rule" }, { head: "Fields" }], signals)] : null,
    failed.length ? [make("h3", { text: "Rules that failed" }), table("Rules that failed", [{ head: "Rule" }, { head: "Reason" }, { head: "Detail" }], failed)] : null,
    make("h3", { text: "As it came" }),
    record.problem ? refusal(record.problem) : [
      make("pre", { id: "raw", class: "raw", tabindex: "0", role: "region", "aria-label": "The record as it came", text: record.form === "other" ? record.text : indented(record.text) }),
      record.form === "avro" ? make("p", { class: "muted", text: "It came as Avro; this is the same as JSON." }) : null,
      record.cut ? make("p", { class: "muted", text: `It has ${number(record.bytes)} bytes; the rest is not shown.` }) : null,
    ],
  ];
}

/** {a: 1, b: "x"} as `a 1 · b x`. */
const pairs = (fields) => Object.entries(fields).map(([name, value]) => `${name} ${typeof value === "string" ? value : JSON.stringify(value)}`).join(" · ") || "none";
