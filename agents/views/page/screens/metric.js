/**
 * A metric: the number, its points over time, its breakdown; what changed it between two moments, and why it is so.
 *
 * Its own of the address: `since`, `since_basis` (compare.js), `explain`, `event` (explain.js).
 */

import { get } from "../api.js";
import { Breakdown } from "../breakdown.js";
import { Chart, stepInWords } from "../chart.js";
import { Compare, askCompared } from "../compare.js";
import { fill, make, redraw } from "../element.js";
import { Explain, VALUE, askExplained, ofPoint, ofRow } from "../explain.js";
import { content } from "../live.js";
import { button } from "../parts.js";
import { asked } from "../question.js";
import { chartSpan } from "../span.js";
import { dayInWords, fromRfc3339, inWords, lengthInWords, rfc3339 } from "../time.js";
import * as words from "../words.js";

const WINDOWS = ["all", "year", "month", "week", "day", "365d", "90d", "28d", "7d", "1d"];
const STEPS = { "15m": "By quarter hours", "1h": "Hour by hour", "1d": "Day by day", "7d": "Week by week", month: "Month by month" };
const $ = (id) => document.getElementById(id);
const nobodys = new Set();  // metrics that no company was seen to have, as the weather at an airport
let chart, breakdown, compare, explain;
let own = {};  // what the address says that is this screen's own

export default { name: "metric", title: "Metric", companies: true, build, complete, heading, show, ask, draw, failed, follows, shows };

/** An address without a metric asks for the first. */
function complete(question, world) {
  return question.metric || !world.metrics.length ? question : { ...question, metric: world.metrics[0].name };
}

function heading(question, world) {
  return question.metric ? `${words.sentence(question.metric)} · ${world.nameOf(question.company)}` : "No metrics yet";
}

async function ask(now, { get, signal, world }) {
  if (!now.metric) return { empty: "No metrics yet", parts: [], failures: [] };
  const span = chartSpan(now, world.range, Date.now());
  let by = chosenBy(now, world);
  const path = `/v1/metrics/${encodeURIComponent(now.metric)}`;
  const common = asked(now);
  const broken = () => (by === "" ? null : get(`${path}/breakdown`, { ...common, window: now.window, by }, signal));
  const parts = await Promise.allSettled([
    get(`${path}/value`, { ...common, window: now.window }, signal),
    span === null ? null : get(`${path}/series`, { ...common, from: rfc3339(span.start), to: rfc3339(span.until), every: span.every }, signal),
    broken(),
    askCompared(now, { get, signal }),
    askExplained(now, { get, signal }),
  ]);
  if (by === "company" && (parts[0].value?.value ?? null) !== null && parts[2].value?.rows.length === 0) {
    nobodys.add(now.metric);
    by = chosenBy(now, world);
    if (by !== "company") [parts[2]] = await Promise.allSettled([broken()]);
  }
  signal.throwIfAborted();
  const failed = parts.map((one) => (one.status === "rejected" ? one.reason : null));
  const [value, series, rows, difference, why] = parts.map((one) => one.value ?? null);
  return { span, by, value, series, rows, difference, why, failed, failures: failed.filter(Boolean) };
}

function follows(now) {
  return now.metric ? [{ metric: now.metric, window: now.window, ...asked(now) }] : [];
}

function shows(answers, kind, said) {
  return kind === "value" && answers.value !== null && content(said) === content(answers.value);
}

function draw(root, now, answers, { world }) {
  if (answers.empty) return failed(root, now, null);
  const metric = metricOf(now, world);
  fill($("by"), byOptions(now, world), answers.by);
  $("by-field").hidden = answers.by === "";
  showValue(now, metric, answers.value, answers.failed[0]);
  showSeries(now, metric, answers.span, answers.series, answers.failed[1]);
  showBreakdown(metric, answers.by, answers.rows, answers.failed[2]);
  const units = (name) => metricOf({ metric: name }, world)?.unit ?? "";
  compare.draw(now, answers.difference, units(now.metric), units);
  return explain.show(now, answers.why ?? {}, units);
}

function failed(root, now, problem) {
  showValue(now, null, null, problem);
  showSeries(now, null, null, null, problem);
  showBreakdown(null, "", null, problem);
  compare.draw(now, null);
}

// ---- the section -------------------------------------------------------------------------------------------------

function build(root, { change }) {
  const turn = (part) => change({ own: { ...own, ...part } });
  root.append(
    make("form", { id: "controls", class: "controls", autocomplete: "off", onsubmit: (event) => event.preventDefault() },
      field("metric", "Metric", "grow"), field("window", "Window")),
    make("section", { id: "answer", class: "card answer", "aria-labelledby": "answer-title" },
      make("div", { class: "answer-number" },
        make("h2", { id: "answer-title", text: " " }),
        make("p", { class: "number" }, make("output", { id: "value", "data-value": "", text: "–", onclick: () => $("why").click() }), " ", make("span", { id: "unit" })),
        make("p", { id: "why-line" }, button("Why this number?", () => turn({ explain: VALUE }), { id: "why", "data-opens": VALUE })),
        make("p", { id: "reason", hidden: true })),
      make("dl", { id: "facts", hidden: true },
        fact("Finality", make("span", { id: "finality", "data-finality": "" }), make("span", { id: "finality-words" })),
        fact("Covers", "covers"), fact("Complete to", "complete-to"), fact("Behind when shown", "lag"), fact("Definition", "definition"))),
    make("section", { class: "card", "aria-labelledby": "chart-title" },
      make("div", { class: "row" }, make("h2", { id: "chart-title", text: "Over time" }), make("p", { id: "readout", class: "muted", text: " " })),
      make("div", { id: "chart", class: "chart", role: "img", "aria-labelledby": "chart-title", "data-points": "0" }),
      make("p", { id: "chart-note", class: "muted", hidden: true }),
      make("details", { id: "points-panel" },
        make("summary", { text: "The points as a table" }),
        make("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "The points" }, make("table", {},
          make("thead", {}, make("tr", {}, column("From"), column("To"), column("Value", "num"))),
          make("tbody", { id: "points" }))))),
    make("section", { class: "card", "aria-labelledby": "breakdown-title" },
      make("div", { class: "row" }, make("h2", { id: "breakdown-title", text: "Breakdown" }), field("by", "by", "inline", "by-field")),
      make("p", { id: "breakdown-note", class: "muted", hidden: true }),
      make("table", { id: "breakdown-table", hidden: true },
        make("thead", {}, make("tr", {},
          make("th", { scope: "col", id: "sort-label-head" }, make("button", { type: "button", id: "sort-label", class: "quiet", text: "Value of the dimension" })),
          make("th", { scope: "col", class: "share", "aria-hidden": "true" }),
          make("th", { scope: "col", class: "num", id: "sort-value-head", "aria-sort": "descending" },
            make("button", { type: "button", id: "sort-value", class: "quiet", text: "Value" })))),
        make("tbody", { id: "breakdown" })),
      make("button", { type: "button", id: "breakdown-more", class: "quiet", hidden: true })));
  compare = new Compare(turn, (position) => turn({ explain: VALUE, event: position }));
  explain = new Explain(get, turn);
  root.append(compare.element, explain.element);
  for (const id of ["metric", "window", "by"]) $(id).addEventListener("change", () => change({ [id]: $(id).value }));
  chart = new Chart($("chart"), $("readout"));
  chart.pressed((point) => turn({ explain: ofPoint(point) }));
  $("points").addEventListener("click", (event) => {
    const name = event.target.closest("[data-opens]")?.dataset.opens;
    if (name) turn({ explain: name });
  });
  breakdown = new Breakdown({
    table: $("breakdown-table"), body: $("breakdown"), note: $("breakdown-note"), more: $("breakdown-more"),
    sortLabel: $("sort-label"), sortValue: $("sort-value"), labelHead: $("sort-label-head"), valueHead: $("sort-value-head"),
  }, (company) => change({ company }), (by, key) => turn({ explain: ofRow(by, key) }));
}

function field(id, label, kind = "", own = undefined) {
  return make("div", { class: `field ${kind}`.trim(), id: own }, make("label", { for: id, text: label }), make("select", { id }));
}

function fact(term, ...what) {
  const of = typeof what[0] === "string" ? make("dd", { id: what[0] }) : make("dd", {}, ...what);
  return make("div", { id: what[0] === "lag" ? "lag-row" : undefined, hidden: what[0] === "lag" }, make("dt", { text: term }), of);
}

function column(text, kind = undefined) {
  return make("th", { scope: "col", class: kind, text });
}

// ---- what it shows -----------------------------------------------------------------------------------------------

/** Everything that follows from the question alone: controls and words. */
function show(root, question, { world }) {
  const { metric, window, company } = question;
  own = question.own;
  compare.show(question, world?.range ?? null);
  fill($("metric"), (world?.metrics ?? []).map((one) => [one.name, words.sentence(one.name)]), metric);
  fill($("window"), WINDOWS.map((one) => [one, words.windowWords(one)]), window, words.windowWords);
  const by = chosenBy(question, world);
  fill($("by"), byOptions(question, world), by);
  $("by-field").hidden = by === "";
  const whose = company ? world?.nameOf(company) ?? company : "whole organisation";
  $("answer-title").textContent = metric ? `${words.sentence(metric)}, ${whose}` : "No metrics yet";
}

function showValue(now, metric, answer, failure) {
  const value = answer?.value ?? null;
  const unit = answer?.unit ?? metric?.unit ?? "";
  const { tz } = now;
  $("value").textContent = words.number(value, unit);
  $("value").dataset.value = value === null ? "" : String(value);
  $("value").dataset.reason = answer?.reason ?? "";
  $("value").title = value === null ? "" : String(value);
  $("unit").textContent = value === null ? "" : words.unitWords(unit);
  $("why-line").hidden = value === null;
  $("reason").hidden = value !== null;
  $("reason").textContent = failure ? failure.title : answer ? words.reasonWords(answer.reason) : "";
  $("finality").dataset.finality = answer?.finality ?? "";
  $("finality").textContent = answer?.finality ?? "";
  $("finality-words").textContent = words.finalityWords(answer?.finality);
  $("covers").textContent = answer ? coversWords(now, answer) : "";
  const complete = fromRfc3339(answer?.complete_to);
  $("complete-to").textContent = complete === null ? (answer ? "not known" : "") : inWords(complete, tz);
  $("facts").hidden = !answer;
  $("lag-row").hidden = typeof answer?.shown_lag_ms !== "number";
  $("lag").textContent = typeof answer?.shown_lag_ms === "number" ? lengthInWords(answer.shown_lag_ms) : "";
  const defined = [answer?.definition, answer?.version].filter(Boolean).join(" ");
  redraw($("definition"), defined ? make("a", { href: `/docs#metric-${encodeURIComponent(now.metric)}`, text: defined }) : null);
}

function coversWords(now, answer) {
  const moment = fromRfc3339(answer.at) ?? now.at;
  const window = words.windowWords(answer.window ?? now.window);
  return now.basis === "latest" || moment === null ? window : `${window}, up to ${inWords(moment, now.tz)}`;
}

function showSeries(now, metric, span, answer, failure) {
  const { tz, at, basis } = now;
  const unit = metric?.unit ?? "";
  const points = (answer?.points ?? []).map((p) => ({ start: fromRfc3339(p.start), end: fromRfc3339(p.end), value: p.value ?? null, reason: p.reason, finality: p.finality }));
  const empty = points.every((p) => p.value === null);
  $("chart").hidden = span === null || Boolean(failure);
  if (span === null || failure) chart.show(null);
  else chart.show({ points, span, at, tz, unit, aggregate: metric?.aggregate ?? null, basis });
  $("chart-note").textContent = failure ? failure.title
    : span === null ? "There is no data before this moment."
      : empty ? `There are no values between ${dayInWords(span.start, tz)} and ${dayInWords(span.until - 1, tz)}.` : "";
  $("chart-note").hidden = !$("chart-note").textContent;
  $("chart-title").textContent = span === null ? "Over time" : STEPS[span.every];
  $("points-panel").hidden = points.length === 0;
  $("points").replaceChildren(...points.map((p) => pointRow(p, tz, unit)));
}

function pointRow(point, tz, unit) {
  const data = { start: rfc3339(point.start), value: point.value === null ? "" : String(point.value), finality: point.finality ?? "" };
  const why = point.finality === "corrected" ? `: ${words.finalityWords("corrected")}` : "";
  return make("tr", { data, title: `${stepInWords(point, tz)}${why}` },
    make("td", { text: inWords(point.start, tz) }), make("td", { text: inWords(point.end, tz) }),
    make("td", { class: "num" }, point.value === null ? words.number(null)
      : make("button", { type: "button", class: "link", data: { opens: ofPoint(point) }, text: words.number(point.value, unit), "aria-label": `${words.number(point.value, unit)}, explain` })));
}

function showBreakdown(metric, by, answer, failure) {
  if (failure) breakdown.show(null, failure.title);
  else if (answer === null) breakdown.show(null, by === "" && metric ? "This metric has no dimensions." : "");
  else {
    const rows = answer.rows.map((r) => ({ ...r, key: String(r.key ?? ""), value: r.value ?? null }));
    breakdown.show({ rows, by, unit: metric?.unit, heading: words.sentence(by) }, answer.next ? "These are the first rows; there are more." : "");
  }
}

function metricOf({ metric }, world) {
  return world?.metrics.find((one) => one.name === metric);
}

function byOptions(question, world) {
  const dimensions = (metricOf(question, world)?.dimensions ?? []).map((one) => [one, words.sentence(one)]);
  return question.company ? dimensions : [["company", "Company"], ...dimensions];
}

/** The breakdown shown: the one asked for if this metric has it, else the first there is, else "".  What no company has is
 *  broken down by a dimension of its own. */
function chosenBy(question, world) {
  const all = byOptions(question, world).map(([key]) => key);
  const first = nobodys.has(question.metric) && all[0] === "company" ? all[1] ?? all[0] : all[0];
  return all.includes(question.by) ? question.by : metricOf(question, world) ? first ?? "" : "";
}
