/**
 * The page: a question in the address, three answers on the screen.
 *
 *     address  ->  question  ->  value · series · breakdown  ->  screen
 *        ^                                                         |
 *        +---------------- controls, back button ------------------+
 *
 * A number on the screen is always an answer to the question in the address: a failed call leaves a dash, not the number
 * of the question before.  "Live" asks again when the worker says that the value has changed, and every half minute, or
 * every five seconds where the worker says nothing; nothing else asks by itself, but to get over a failure.
 */

import { Problem, backOff, get } from "./api.js";
import { Breakdown } from "./breakdown.js";
import { Chart, stepInWords } from "./chart.js";
import { Companies } from "./companies.js";
import { Live } from "./live.js";
import { asked, readQuestion, settle, writeQuestion } from "./question.js";
import { chartSpan } from "./span.js";
import { TimeBar } from "./timebar.js";
import { browserZone, dayInWords, fromRfc3339, inWords, lengthInWords, rfc3339 } from "./time.js";
import * as words from "./words.js";

const LIVE_MS = 5000;
const TOLD_MS = 30000;
const WINDOWS = ["all", "year", "month", "week", "day", "365d", "90d", "28d", "7d", "1d"];
const $ = (id) => document.getElementById(id);

let question;            // what is asked; see question.js
let notes = [];          // what the address said that could not be taken
let world = null;        // {metrics, range, org}: what can be asked; null until the worker has said
let turn = 0;            // counts askings; an answer of an earlier one is thrown away
let attempt = 0;         // failures in a row
let running = null;      // AbortController of the asking under way
let timer = null;        // the next asking, when one is due
let stale = false;       // the slider moved on while an asking was under way
let opened = true;       // the question came from the address, which may not say all of it
let problem = null;      // what the notice shows
const nobodys = new Set();  // metrics that no company was seen to have, as the weather at an airport

const chart = new Chart($("chart"), $("readout"));
const breakdown = new Breakdown({
  table: $("breakdown-table"), body: $("breakdown"), note: $("breakdown-note"), more: $("breakdown-more"),
  sortLabel: $("sort-label"), sortValue: $("sort-value"), labelHead: $("sort-label-head"), valueHead: $("sort-value-head"),
}, (company) => change({ company }));
const companies = new Companies(
  { list: $("company"), search: $("search"), note: $("company-note"), name: $("company-name"), panel: $("company-panel") },
  { onSelect: (company) => change({ company }), onSearch: searchCompanies },
);
const live = new Live(() => {
  if (running === null) ask({ quiet: true, live: true });
  else stale = true;  // asked when the present answers are here
});
const timebar = new TimeBar({
  slider: $("at"), text: $("at-text"), back: $("day-back"), forward: $("day-forward"), from: $("at-from"), to: $("at-to"),
  error: $("at-error"), radios: [...document.querySelectorAll("input[name=basis]")],
}, (moment, done) => change(moment, done));

for (const id of ["metric", "window", "tz", "by"]) $(id).addEventListener("change", () => change({ [id]: $(id).value }));
$("controls").addEventListener("submit", (event) => event.preventDefault());
$("to-live").addEventListener("click", () => change({ at: null, basis: "latest" }));
$("notice-retry").addEventListener("click", () => ask());
$("notice-guess").addEventListener("click", () => takeGuess());
globalThis.addEventListener("popstate", () => open());
document.addEventListener("visibilitychange", () => {
  if (document.hidden) live.follow(null, null);  // a browser has few connections to give
  else if (question.basis === "latest") ask({ quiet: true, live: true });
});

open();

/** Takes the question from the address: at the start and when the person goes back or forward. */
function open() {
  ({ question, notes } = readQuestion(location.search));
  opened = true;
  ask();
}

/** Changes the question.  While a slider is dragged (`done` false) the address waits for the end of the drag. */
function change(part, done = true) {
  question = settle({ ...question, ...part });
  notes = [];
  if (!done) {
    showQuestion();
    if (running === null) ask({ quiet: true });
    else stale = true;  // asked when the present answers are here, so a long drag shows numbers on its way
    return;
  }
  const query = `?${writeQuestion(question)}`;
  if (query !== location.search) history.pushState(null, "", query);
  ask();
}

function plan(ms, how) {
  clearTimeout(timer);
  timer = setTimeout(() => {
    if (how.live && document.hidden) return;  // the visibility listener asks when the page is seen again
    ask(how);
  }, ms);
}

/** Asks everything about the question and shows it.  `quiet`: the screen keeps its numbers until the new ones are here. */
async function ask({ quiet = false, live: again = false } = {}) {
  turn += 1;
  const mine = turn;
  clearTimeout(timer);
  running?.abort();
  running = new AbortController();
  stale = false;
  const { signal } = running;
  if (!quiet) setStatus("loading", "Loading…");
  $("main").setAttribute("aria-busy", "true");
  try {
    if (world === null || again || attempt) await learn(signal);
    if (mine !== turn) return;
    if (!question.metric && world.metrics.length) question = { ...question, metric: world.metrics[0].name };
    showQuestion();
    const now = question;
    if (!now.metric) {
      finish(now, [], "empty");
      return;
    }
    const span = chartSpan(now, world.range, Date.now());
    let by = chosenBy();
    const path = `/v1/metrics/${encodeURIComponent(now.metric)}`;
    const common = asked(now);
    const answers = await Promise.allSettled([
      get(`${path}/value`, { ...common, window: now.window }, signal),
      span === null ? null : get(`${path}/series`, { ...common, from: rfc3339(span.start), to: rfc3339(span.until), every: span.every }, signal),
      by === "" ? null : get(`${path}/breakdown`, { ...common, window: now.window, by }, signal),
    ]);
    if (mine !== turn) return;
    if (by === "company" && (answers[0].value?.value ?? null) !== null && answers[2].value?.rows.length === 0) {
      nobodys.add(now.metric);
      by = chosenBy();
      showQuestion();
      if (by !== "company") [answers[2]] = await Promise.allSettled([get(`${path}/breakdown`, { ...common, window: now.window, by }, signal)]);
      if (mine !== turn) return;
    }
    const failed = answers.map((a) => (a.status === "rejected" ? a.reason : null));
    showValue(now, answers[0].value ?? null, failed[0]);
    showSeries(now, span, answers[1].value ?? null, failed[1]);
    showBreakdown(now, by, answers[2].value ?? null, failed[2]);
    const followed = now.basis === "latest" && !document.hidden;
    live.follow(followed ? { metric: now.metric, window: now.window, ...common } : null, answers[0].value ?? null);
    finish(now, failed.filter(Boolean), "ready");
  } catch (error) {
    if (mine !== turn || error.name === "AbortError") return;
    showQuestion();
    showValue(question, null, error);
    showSeries(question, null, null, error);
    showBreakdown(question, "", null, error);
    finish(question, [error], "ready");
  }
}

/** What can be asked: metrics, the data's time, companies. */
async function learn(signal) {
  const [metrics, list] = await Promise.all([get("/v1/metrics", {}, signal), get("/v1/companies", { limit: 1000 }, signal)]);
  const from = fromRfc3339(metrics.time_range?.from);
  const to = fromRfc3339(metrics.time_range?.to);
  world = { metrics: metrics.metrics, org: [metrics.org ?? []].flat().join(", "), range: from === null || to === null ? null : { from, to } };
  if (!$("search").value.trim() || !list.next) companies.fill(list.companies, Boolean(list.next));
}

async function searchCompanies(text) {
  try {
    const list = await get("/v1/companies", text ? { limit: 1000, q: text } : { limit: 1000 });
    if ($("search").value.trim() === text) companies.fill(list.companies, Boolean(list.next) || text !== "");
  } catch (error) {
    tell(error instanceof Problem ? error : unexpected(error));
  }
}

/** Ends an asking: the status, the notice, and when to ask again. */
function finish(now, failures, state) {
  const worst = failures.find((f) => !(f instanceof Problem)) ?? failures.find((f) => f.retryMs === null) ?? failures[0];
  const again = failures.find((f) => f instanceof Problem && f.retryMs !== null);
  running = null;
  if (stale) {
    ask({ quiet: true });
    return;
  }
  $("main").setAttribute("aria-busy", "false");
  $("status").dataset.question = writeQuestion(now);
  if (!worst) {
    attempt = 0;
    tell(null);
    setStatus(state, state === "empty" ? "No metrics yet" : "Up to date");
    if (now.basis === "latest" || state === "empty") plan(live.open ? TOLD_MS : LIVE_MS, { quiet: true, live: true });
    if (opened && now.metric) {
      history.replaceState(null, "", `?${writeQuestion(now)}`);
      opened = false;
    }
    return;
  }
  tell(worst instanceof Problem ? worst : unexpected(worst));
  const kind = worst === again ? { 503: "restoring", 0: "offline" }[worst.status] ?? "error" : "error";
  setStatus(kind, { restoring: "Restoring", offline: "No connection", error: "Problem" }[kind]);
  if (!again) return;
  // The worker says when to ask again; without an answer the pauses grow.
  const pause = again.status === 0 ? backOff(attempt) : again.retryMs;
  attempt += 1;
  $("notice-fix").textContent = `${worst.fix ? `${worst.fix} ` : ""}Trying again in ${lengthInWords(pause)}.`;
  plan(pause, { quiet: true });
}

function unexpected(error) {
  console.error(error);
  return new Problem({ status: -1, title: "This page stumbled over an answer.", detail: String(error.message ?? error) });
}

// ---- the screen --------------------------------------------------------------------------------------------------

/** Everything that follows from the question alone: controls, words, the moment. */
function showQuestion() {
  const { basis, at, tz } = question;
  const metric = metricOf(question);
  $("org").textContent = world?.org ?? "";
  options($("metric"), (world?.metrics ?? []).map((m) => [m.name, words.sentence(m.name)]), question.metric);
  options($("window"), WINDOWS.map((w) => [w, words.windowWords(w)]), question.window, words.windowWords);
  const own = browserZone();
  const zones = [["UTC", "UTC"], ["America/New_York", "New York"]];
  if (!zones.some(([zone]) => zone === own)) zones.splice(1, 0, [own, `${own} (this browser)`]);
  options($("tz"), zones, tz);
  options($("by"), byOptions(metric), chosenBy());
  $("by-field").hidden = chosenBy() === "";
  companies.select(question.company);
  timebar.show(question, world?.range ?? null);
  const moment = at === null ? "" : inWords(at, tz);
  $("mode").dataset.basis = basis;
  document.documentElement.dataset.mode = basis === "latest" ? "live" : basis;
  $("mode-words").textContent = { latest: "live", corrected: `corrected ${moment}`, as_shown: `as shown ${moment}` }[basis];
  $("to-live").hidden = basis === "latest";
  $("basis-words").textContent = words.basisWords(basis);
  $("answer-title").textContent = question.metric ? `${words.sentence(question.metric)}, ${question.company ? companies.title : "whole organisation"}` : "No metrics yet";
  document.title = question.metric ? `${words.sentence(question.metric)} · ${companies.title} · Milepost` : "Milepost";
}

function showValue(now, answer, failure) {
  const value = answer?.value ?? null;
  const unit = answer?.unit ?? metricOf(now)?.unit ?? "";
  const { tz } = now;
  $("value").textContent = words.number(value, unit);
  $("value").dataset.value = value === null ? "" : String(value);
  $("value").dataset.reason = answer?.reason ?? "";
  $("value").title = value === null ? "" : String(value);
  $("unit").textContent = value === null ? "" : words.unitWords(unit);
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
  $("definition").textContent = [answer?.definition, answer?.version].filter(Boolean).join(" ");
}

function coversWords(now, answer) {
  const moment = fromRfc3339(answer.at) ?? now.at;
  const window = words.windowWords(answer.window ?? now.window);
  return now.basis === "latest" || moment === null ? window : `${window}, up to ${inWords(moment, now.tz)}`;
}

function showSeries(now, span, answer, failure) {
  const { tz, at, basis } = now;
  const metric = metricOf(now);
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
  $("chart-title").textContent = span === null ? "Over time" : { "15m": "By quarter hours", "1h": "Hour by hour", "1d": "Day by day", "7d": "Week by week", month: "Month by month" }[span.every];
  $("points-panel").hidden = points.length === 0;
  $("points").replaceChildren(...points.map((p) => pointRow(p, tz, unit)));
}

function pointRow(point, tz, unit) {
  const line = document.createElement("tr");
  line.dataset.start = rfc3339(point.start);
  line.dataset.value = point.value === null ? "" : String(point.value);
  line.dataset.finality = point.finality ?? "";
  for (const [text, kind] of [[inWords(point.start, tz), ""], [inWords(point.end, tz), ""], [words.number(point.value, unit), "num"]]) {
    const cell = document.createElement("td");
    cell.textContent = text;
    cell.className = kind;
    line.append(cell);
  }
  line.title = point.finality === "corrected" ? `${stepInWords(point, tz)}: ${words.finalityWords("corrected")}` : stepInWords(point, tz);
  return line;
}

function showBreakdown(now, by, answer, failure) {
  if (failure) breakdown.show(null, failure.title);
  else if (answer === null) breakdown.show(null, by === "" && metricOf(now) ? "This metric has no dimensions." : "");
  else {
    const rows = answer.rows.map((r) => ({ ...r, key: String(r.key ?? ""), value: r.value ?? null }));
    breakdown.show({ rows, by, unit: metricOf(now)?.unit, heading: words.sentence(by) }, answer.next ? "These are the first rows; there are more." : "");
  }
}

/** The notice: what went wrong or was not understood, and what to do. */
function tell(failure) {
  problem = failure;
  $("notice").hidden = !failure && notes.length === 0;
  $("notice").dataset.status = failure ? String(failure.status) : "";
  $("notice-title").textContent = failure ? (failure.status === 503 ? "This part of the data is being restored." : failure.title) : notes.join(" ");
  $("notice-detail").textContent = failure?.detail ?? "";
  $("notice-fix").textContent = failure?.fix ?? "";
  $("notice-retry").hidden = !failure;
  $("notice-guess").hidden = !failure?.guess || guessed(failure.guess) === null;
  $("notice-guess").textContent = failure?.guess ? `Did you mean ${failure.guess}?` : "";
}

/** The change that a problem's guess stands for, or null: it may name a metric, a company, a zone's or window's spelling. */
function guessed(guess) {
  if (world?.metrics.some((m) => m.name === guess)) return { metric: guess };
  const company = companies.named(guess);
  return company ? { company: company.metakey } : null;
}

function takeGuess() {
  const part = problem && guessed(problem.guess);
  if (part) change(part);
}

function setStatus(state, text) {
  $("status").dataset.state = state;
  $("status").textContent = text;
}

/** Fills a select; a value that is not among the options (from the address) is added, so that it is seen. */
function options(select, pairs, value, name = (text) => text) {
  const all = value && !pairs.some(([key]) => key === value) ? [...pairs, [value, name(value)]] : pairs;
  const key = JSON.stringify(all);
  if (select.dataset.filled !== key) {
    select.dataset.filled = key;
    select.replaceChildren(...all.map(([v, text]) => new Option(text, v)));
  }
  select.value = value;
}

function metricOf({ metric }) {
  return world?.metrics.find((m) => m.name === metric);
}

function byOptions(metric) {
  const dimensions = (metric?.dimensions ?? []).map((d) => [d, words.sentence(d)]);
  return question.company ? dimensions : [["company", "Company"], ...dimensions];
}

/** The breakdown shown: the one asked for if this metric has it, else the first there is, else "".  What no company has is
 *  broken down by a dimension of its own. */
function chosenBy() {
  const all = byOptions(metricOf(question)).map(([key]) => key);
  const first = nobodys.has(question.metric) && all[0] === "company" ? all[1] ?? all[0] : all[0];
  return all.includes(question.by) ? question.by : metricOf(question) ? first ?? "" : "";
}

