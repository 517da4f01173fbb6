/** Pieces that several screens have: cards, moments, the states of milestones, and what stands where there is nothing. */

import { make } from "./element.js";
import { fromRfc3339, inWords, rfc3339 } from "./time.js";
import { sentence, number, unitWords, windowWords } from "./words.js";

/** The states of a milestone in the order in which they are told, each with its word and what it means. */
export const STATES = {
  achieved: ["achieved", "what was agreed has been met"],
  in_progress: ["in progress", "it has begun and is not decided"],
  missed: ["missed", "the deadline passed without it"],
  lapsed: ["lapsed", "it held, and does not hold now"],
  unknown_stale: ["not known", "a source fell silent before it was decided"],
  input_withdrawn: ["withdrawn", "what it was recognised by has been taken back"],
  pending: ["not begun", "its start lies ahead"],
};

/** A card with a heading; `beside` stands at the end of the heading's line. */
export function card(id, title, { beside = null, kind = "" } = {}, ...children) {
  return make("section", { class: `card ${kind}`.trim(), id, "aria-labelledby": `${id}-title` },
    make("div", { class: "row" }, make("h3", { id: `${id}-title`, text: title }), beside), ...children);
}

/** What stands where there is nothing to show: what is so, and what one can do. */
export function nothing(words, more = "") {
  return make("div", { class: "nothing" }, make("p", { text: words }), more ? make("p", { class: "muted", text: more }) : null);
}

/** An instant (ms or RFC 3339) in the question's zone; a dash where there is none. */
export function moment(instant, tz) {
  const ms = typeof instant === "number" ? instant : fromRfc3339(instant);
  return ms === null ? make("span", { text: "–" }) : make("time", { datetime: rfc3339(ms), text: inWords(ms, tz) });
}

/** A state as a pill: its colour says it once more than its word. */
export function pill(state) {
  const [word, meaning] = STATES[state] ?? [sentence(state ?? "unknown"), ""];
  return make("span", { class: "pill", data: { state }, title: meaning, text: word });
}

/** What an action of a milestone asks for: "Departures, last 28 days, ≥ 5,000". */
export function termWords(action, unit = "") {
  if (!action.metric) return sentence(action.manual ?? action.name);
  const op = { ">=": "≥", "<=": "≤", "==": "=", "!=": "≠" }[action.op] ?? action.op;
  return `${sentence(action.metric)}, ${windowWords(action.window).toLowerCase()}, ${op} ${number(action.target, unit)} ${unitWords(unit)}`.trim();
}

/** How many of its actions a milestone needs. */
export function needWords(need, count) {
  if (count < 2) return "";
  if (need === "all" || need === undefined) return `all ${count} of these`;
  if (need.at_least !== undefined) return `at least ${need.at_least} of these`;
  return `these to a weight of ${Object.values(need)[0]}`;
}
