/**
 * The question a page asks: on which screen, of which company, metric, moment, basis, window, zone, breakdown.  It lives
 * in the address and nowhere else, so a link shows what its sender saw and the back button goes back.
 *
 *     {screen, company: "" | "mk_…" | "key:value", metric, at: ms | null, basis, window, tz, by: "" | "company" | dimension,
 *      own: {name: text}}
 *
 * `at` is null exactly when basis is "latest": the API refuses the two together.  `own` is what the screen alone reads.
 */

import { QUARTER, floorTo, fromRfc3339, knowsZone, rfc3339 } from "./time.js";

export const BASES = ["latest", "corrected", "as_shown"];
const NAMES = ["overview", "company", "metric", "identity", "pipeline"];
const COMMON = new Set(["screen", "company", "metric", "at", "basis", "window", "tz", "by"]);
const OWN_MAX = 12;
const TEXT_MAX = 2000;

/** Reads an address's query; `notes` says in words what could not be taken as it stood. */
export function readQuestion(search) {
  const given = new URLSearchParams(search);
  const notes = [];
  const own = [...given].filter(([name, text]) => !COMMON.has(name) && text.length <= TEXT_MAX).slice(0, OWN_MAX);
  const question = {
    // Before there were several screens an address named a metric: such a link shows what it showed.
    screen: given.get("screen") || (given.has("metric") ? "metric" : "overview"),
    company: given.get("company") ?? "",
    metric: given.get("metric") ?? "",
    at: null,
    basis: given.get("basis") ?? "",
    window: given.get("window") || "all",
    tz: given.get("tz") || "UTC",
    by: given.get("by") ?? "",
    own: Object.fromEntries(own),
  };
  if (!NAMES.includes(question.screen)) {
    notes.push(`There is no screen “${question.screen}”: it is one of ${NAMES.join(", ")}.`);
    question.screen = "overview";
  }
  if (!knowsZone(question.tz)) {
    notes.push(`The time zone “${question.tz}” is not known to this browser; this is UTC.`);
    question.tz = "UTC";
  }
  if (question.basis && !BASES.includes(question.basis)) {
    notes.push(`There is no basis “${question.basis}”: it is one of ${BASES.join(", ")}.`);
    question.basis = "";
  }
  if (given.get("at")) {
    const at = fromRfc3339(given.get("at"));
    if (at === null) notes.push(`The moment “${given.get("at")}” is not a time such as 2013-05-12T12:00:00Z.`);
    else question.at = floorTo(at, QUARTER);
  }
  return { question: settle(question), notes };
}

/** The same question with `at` and `basis` in agreement; a basis that needs a moment and has none falls back to latest. */
export function settle(question) {
  const basis = question.basis || (question.at === null ? "latest" : "corrected");
  if (basis === "latest" || question.at === null) return { ...question, basis: "latest", at: null };
  return { ...question, basis };
}

/** The question after a change.  What is a screen's own stays behind when the screen changes. */
export function moved(question, part) {
  const stays = (part.screen ?? question.screen) === question.screen;
  return settle({ ...question, ...part, own: part.own ?? (stays ? question.own : {}) });
}

/** The address's query for a question: fixed order, nothing left to a default that another reader may not share. */
export function writeQuestion(question) {
  const out = new URLSearchParams();
  const metric = question.screen === "metric";
  if (!metric) out.set("screen", question.screen);
  if (question.company) out.set("company", question.company);
  if (question.metric || metric) out.set("metric", question.metric);
  if (question.at !== null) out.set("at", rfc3339(question.at));
  out.set("basis", question.basis);
  if (question.window !== "all" || metric) out.set("window", question.window);
  out.set("tz", question.tz);
  if (question.by) out.set("by", question.by);
  for (const [name, text] of Object.entries(question.own)) if (text) out.set(name, text);
  return out.toString();
}

/** The parameters that every call of the API about this question has. */
export function asked(question) {
  const out = { basis: question.basis, tz: question.tz };
  if (question.company) out.company = question.company;
  if (question.at !== null) out.at = rfc3339(question.at);
  return out;
}
