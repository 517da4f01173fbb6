/** A company's plans: each milestone with what was agreed, what has come of it, and the evidence. */

import { make } from "../../element.js";
import { moment, needWords, nothing, pill, termWords } from "../../pieces.js";
import * as words from "../../words.js";

export function plans(now, rows, agreed, world) {
  if (!rows.length) return nothing("No plan of this company was in force at this moment.", "Plans are declared in the bundle, each with a bridge to its companies.");
  const names = [...new Set(rows.map((row) => row.plan))];
  return names.map((name) => make("section", { class: "plan", "aria-label": `Plan ${words.sentence(name)}` },
    make("h4", { text: words.sentence(name) }),
    make("p", { class: "muted", text: agreed.find((one) => one.plan === name)?.bridge ?? "" }),
    make("ul", { class: "steps" }, rows.filter((row) => row.plan === name).map((row) => step(now, row, world)))));
}

function step(now, row, world) {
  const needed = row.actions.filter((one) => one.affects !== false);
  return make("li", { data: { plan: row.plan, milestone: row.milestone, state: row.state } },
    make("div", { class: "row" }, make("p", { class: "name", text: words.sentence(row.milestone) }), pill(row.state)),
    make("p", { class: "muted" }, ...told(now, row)),
    row.dispute ? make("p", { class: "error", text: `In dispute (${words.sentence(row.dispute.status).toLowerCase()}): ${words.sentence(row.dispute.cause ?? "changed").toLowerCase()} after it was final.` }) : null,
    needWords(row.need, needed.length) ? make("p", { class: "muted", text: `It takes ${needWords(row.need, needed.length)}:` }) : null,
    make("ul", { class: "actions" }, row.actions.map((one) => action(now, one, world))),
    row.corrections?.length ? make("details", {}, make("summary", { text: `Corrected ${row.corrections.length === 1 ? "once" : `${row.corrections.length} times`}` }),
      make("ul", {}, row.corrections.map((one) => make("li", { class: "muted" }, `${one.before?.state ?? "–"} → ${one.after?.state ?? one.state ?? "–"} (${one.cause ?? "changed"}), known `, moment(one.known, now.tz))))) : null);
}

/** What is told of a milestone's time: when it was reached, until when it may be, how far its sources have sent. */
function told(now, row) {
  const parts = [];
  if (row.achieved_at) parts.push(["reached ", moment(row.achieved_at, now.tz)]);
  if (row.lapsed) parts.push([`lapsed ${row.lapsed === 1 ? "once" : `${words.number(row.lapsed)} times`}`]);
  parts.push(["deadline ", moment(row.deadline, now.tz)]);
  if (row.recognised_at) parts.push(["recognised ", moment(row.recognised_at, now.tz)]);
  if (row.complete_to) parts.push(["sources complete to ", moment(row.complete_to, now.tz)]);
  return parts.flatMap((part, i) => (i ? [" · ", ...part] : part));
}

function action(now, one, world) {
  const unit = world.metrics.find((of) => of.name === one.metric)?.unit ?? "";
  const value = one.metric ? `${words.number(one.value, unit)} ${words.unitWords(unit)}`.trim() : one.holds ? `ticked${one.by ? ` by ${one.by}` : ""}` : "not ticked yet";
  return make("li", { data: { action: one.name, holds: String(one.holds), value: one.value === null || one.value === undefined ? "" : String(one.value) } },
    make("span", { class: "mark", "aria-hidden": "true", text: one.holds ? "✓" : "○" }),
    make("span", {}, termWords(one, unit), one.affects === false ? make("span", { class: "tag", text: "does not count" }) : null),
    make("span", { class: "is" }, make("strong", { text: value }), make("span", { class: "muted" }, one.holds ? [", holds since ", moment(one.since, now.tz)] : ", does not hold")));
}
