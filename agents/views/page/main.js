/**
 * The page: a question in the address, its answers on one of five screens (screens.js says what a screen is).
 *
 *     address  ->  question  ->  the screen's answers  ->  its section
 *        ^                                                     |
 *        +-------- time, basis, links, back button ------------+
 *
 * What stands on the screen is always an answer to the question in the address: a failed call leaves a dash, not the
 * number of the question before.  While the worker cannot be asked, the last answers to the same question stay, pale and
 * with the time at which they held.  "Live" asks again when the worker says that something has changed, and every half
 * minute, or every five seconds where the worker says nothing; nothing else asks by itself, but to get over a failure.
 */

import { Problem, backOff, get } from "./api.js";
import { Companies } from "./companies.js";
import { fill, make } from "./element.js";
import { Live } from "./live.js";
import { Notice } from "./notice.js";
import { moved, readQuestion, writeQuestion } from "./question.js";
import { SCREENS } from "./screens.js";
import { TimeBar } from "./timebar.js";
import { browserZone, fromRfc3339, inWords, lengthInWords, timeInWords } from "./time.js";
import * as words from "./words.js";

const LIVE_MS = 5000;
const TOLD_MS = 30000;
const REST_MS = [250, 5000];  // between two askings for what is new: three times what the last one took, within these
const $ = (id) => document.getElementById(id);

let question;            // what is asked; see question.js
let world = null;        // what can be asked; see screens.js; null until the worker has said
let turn = 0;            // counts askings; an answer of an earlier one is thrown away
let attempt = 0;         // failures in a row
let running = null;      // AbortController of the asking under way
let timer = null;        // the next asking, when one is due
let stale = false;       // the slider moved on while an asking was under way
let told = false;        // the worker said that something changed while an asking was under way
let restUntil = 0;       // when the next asking for what is new may begin
let opened = true;       // the question came from the address, which may not say all of it
let drawn = { question: "", at: 0 };  // which question's answers stand on the screen, and since when
let lost = false;        // they could not be had anew
const sections = new Map();  // screen -> its section, once it has been visited

const companies = new Companies(
  { list: $("company"), search: $("search"), note: $("company-note"), name: $("company-name"), panel: $("company-panel") },
  { onSelect: (company) => change({ company }), onSearch: searchCompanies },
);
const live = new Live(() => {
  told = true;
  if (running === null) plan(restUntil - Date.now(), { quiet: true, live: true });
});
const timebar = new TimeBar({
  slider: $("at"), text: $("at-text"), back: $("day-back"), forward: $("day-forward"), from: $("at-from"), to: $("at-to"),
  error: $("at-error"), radios: [...document.querySelectorAll("input[name=basis]")],
}, (moment, done) => change(moment, done));
const notice = new Notice({
  box: $("notice"), title: $("notice-title"), detail: $("notice-detail"), fix: $("notice-fix"), retry: $("notice-retry"), guess: $("notice-guess"),
}, { onRetry: () => ask(), onGuess: (part) => change(part), guessed });
const context = { change, href, get world() { return world; } };

$("screens").append(...SCREENS.map((one) => make("li", {}, make("a", { data: { screen: one.name }, text: one.title }))));
$("tz").addEventListener("change", () => change({ tz: $("tz").value }));
$("to-live").addEventListener("click", () => change({ at: null, basis: "latest" }));
globalThis.addEventListener("popstate", () => open());
globalThis.addEventListener("online", () => attempt && ask({ quiet: true, live: true }));
document.addEventListener("click", followLink);
document.addEventListener("visibilitychange", () => {
  if (document.hidden) live.follow([]);  // a browser has few connections to give
  else if (question.basis === "latest") ask({ quiet: true, live: true });
});

open();

/** Takes the question from the address: at the start and when the person goes back or forward. */
function open() {
  const read = readQuestion(location.search);
  question = read.question;
  notice.note(read.notes);
  opened = true;
  ask();
}

/** Changes the question.  While a slider is dragged (`done` false) the address waits for the end of the drag. */
function change(part, done = true) {
  question = moved(question, part);
  notice.note([]);
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

/** The address of the question after a change. */
function href(part) {
  return `?${writeQuestion(moved(question, part))}`;
}

/** A link to another question is followed here; with a modifier, or to anywhere else, by the browser. */
function followLink(event) {
  const link = event.target.closest("a[href^='?']");
  if (!link || event.defaultPrevented || event.button || event.ctrlKey || event.metaKey || event.shiftKey || event.altKey) return;
  event.preventDefault();
  const from = question.screen;
  history.pushState(null, "", link.getAttribute("href"));
  open();
  if (question.screen === from || link.closest("nav")) return;
  $("main").focus();  // the link is gone with its screen
  globalThis.scrollTo(0, 0);
}

function plan(ms, how) {
  clearTimeout(timer);
  timer = setTimeout(() => {
    if (how.live && document.hidden) return;  // the visibility listener asks when the page is seen again
    ask(how);
  }, Math.max(0, ms));
}

/** Asks everything about the question and shows it.  `quiet`: the screen keeps its numbers until the new ones are here. */
async function ask({ quiet = false, live: again = false } = {}) {
  turn += 1;
  const mine = turn;
  const began = Date.now();
  clearTimeout(timer);
  running?.abort();
  running = new AbortController();
  stale = told = false;
  const { signal } = running;
  if (!quiet) setStatus("loading", "Loading…");
  $("main").setAttribute("aria-busy", "true");
  $("main").toggleAttribute("data-loading", !quiet);
  showQuestion();
  let now = question;
  let answers = null;
  let failures = [];
  try {
    if (world === null || again || attempt) failures = await learned(signal);
    if (mine !== turn) return;
    question = screen().complete?.(question, world) ?? question;
    showQuestion();
    now = question;
    answers = await screen().ask(now, { get, signal, world });
    failures = [...failures, ...answers.failures ?? []];
  } catch (error) {
    failures = [error];
  }
  if (mine !== turn) return;  // overtaken: its calls were aborted
  restUntil = Date.now() + Math.min(Math.max(3 * (Date.now() - began), REST_MS[0]), REST_MS[1]);
  finish(now, answers, failures.map((one) => (one instanceof Problem ? one : unexpected(one))));
}

/** What can be asked: metrics, the data's time, companies.  Before the first definitions there is nothing of it. */
async function learn(signal) {
  let metrics = { metrics: [], org: null };
  let list = { companies: [], next: null };
  try {
    [metrics, list] = await Promise.all([get("/v1/metrics", {}, signal), get("/v1/companies", { limit: 1000 }, signal)]);
  } catch (error) {
    if (!(error instanceof Problem) || error.status !== 404) throw error;
  }
  const from = fromRfc3339(metrics.time_range?.from);
  const to = fromRfc3339(metrics.time_range?.to);
  world = {
    metrics: metrics.metrics, org: [metrics.org ?? []].flat().join(", "), range: from === null || to === null ? null : { from, to },
    companies: list.companies, more: Boolean(list.next), nameOf: (company) => companies.titleOf(company),
  };
  if (!$("search").value.trim() || !list.next) companies.fill(list.companies, Boolean(list.next));
}

/** Learns what can be asked; Problems only for a screen that is of use without it. */
async function learned(signal) {
  try {
    await learn(signal);
    return [];
  } catch (error) {
    if (!screen().always || !(error instanceof Problem)) throw error;
    return [error];
  }
}

async function searchCompanies(text) {
  try {
    const list = await get("/v1/companies", text ? { limit: 1000, q: text } : { limit: 1000 });
    if ($("search").value.trim() === text) companies.fill(list.companies, Boolean(list.next) || text !== "");
  } catch (error) {
    notice.tell(error instanceof Problem ? error : unexpected(error));
  }
}

/** Ends an asking: what is drawn, the status, the notice, and when to ask again. */
function finish(now, answers, problems) {
  running = null;
  const again = problems.find((one) => one.retryMs !== null);
  const kept = again && !(answers && screen(now).always) && drawn.question === writeQuestion(now);
  if (!kept) problems = [...problems, ...drawAll(now, answers, problems)];
  if (stale) {
    ask({ quiet: true });
    return;
  }
  const worst = problems.find((one) => one.status === -1) ?? problems.find((one) => one.retryMs === null) ?? problems[0];
  lost = Boolean(kept);
  showMoment();
  $("main").setAttribute("aria-busy", "false");
  $("main").removeAttribute("data-loading");
  $("status").dataset.question = writeQuestion(now);
  notice.tell(worst ?? null);
  if (!worst) {
    attempt = 0;
    const empty = answers.empty ?? "";
    setStatus(empty ? "empty" : "ready", empty || "Up to date");
    follow(now, answers);
    if (now.basis === "latest" || empty) plan(told ? restUntil - Date.now() : live.open ? TOLD_MS : LIVE_MS, { quiet: true, live: true });
    if (opened && !empty) {
      history.replaceState(null, "", `?${writeQuestion(now)}`);
      opened = false;
    }
    return;
  }
  const kind = worst === again ? { 503: "restoring", 0: "offline" }[worst.status] ?? "error" : "error";
  setStatus(kind, { restoring: "Restoring", offline: "No connection", error: "Problem" }[kind]);
  // A stream hangs on a lost connection without knowing it: it is opened anew when the worker answers again.
  if (answers && again && problems.every((one) => one.status !== 0)) follow(now, answers);
  else live.follow([]);
  if (!again) return;
  // The worker says when to ask again; without an answer the pauses grow.
  const pause = again.status === 0 ? backOff(attempt) : again.retryMs;
  attempt += 1;
  notice.again(`Trying again in ${lengthInWords(pause)}.`);
  plan(pause, { quiet: true });
}

/** Draws the answers, or that there are none; returns what went wrong on the way. */
function drawAll(now, answers, problems) {
  drawn = { question: problems.length ? "" : writeQuestion(now), at: Date.now() };
  const root = sections.get(now.screen);
  root.dataset.state = answers ? "drawn" : "failed";
  try {
    if (answers) screen(now).draw(root, now, answers, context);
    else screen(now).failed?.(root, now, problems[0]);
    return [];
  } catch (error) {
    drawn.question = "";
    return [unexpected(error)];
  }
}

function follow(now, answers) {
  const one = screen(now);
  const list = now.basis === "latest" && !document.hidden ? one.follows?.(now, answers) ?? [] : [];
  live.follow(list, (kind, said) => one.shows?.(answers, kind, said) ?? false);
}

function unexpected(error) {
  console.error(error);
  return new Problem({ status: -1, title: "This page stumbled over an answer.", detail: String(error.message ?? error) });
}

// ---- the shell ---------------------------------------------------------------------------------------------------

function screen({ screen: name } = question) {
  return SCREENS.find((one) => one.name === name);
}

/** Everything that follows from the question alone: screen, controls, words, the moment. */
function showQuestion() {
  const one = screen();
  stage(one);
  $("org").textContent = world?.org ?? "";
  for (const link of $("screens").querySelectorAll("a")) {
    link.href = href({ screen: link.dataset.screen });
    if (link.dataset.screen === one.name) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  const own = browserZone();
  const zones = [["UTC", "UTC"], ["America/New_York", "New York"]];
  if (!zones.some(([zone]) => zone === own)) zones.splice(1, 0, [own, `${own} (this browser)`]);
  fill($("tz"), zones, question.tz);
  $("beside").hidden = !one.companies;
  $("frame").dataset.beside = String(Boolean(one.companies));
  companies.select(question.company);
  timebar.show(question, world?.range ?? null);
  document.documentElement.dataset.mode = question.basis === "latest" ? "live" : question.basis;
  showMoment();
  $("to-live").hidden = question.basis === "latest";
  $("basis-words").textContent = words.basisWords(question.basis);
  one.show?.(sections.get(one.name), question, context);
  document.title = `${(world && one.heading?.(question, world)) || one.title} · Milepost`;
}

/** The words of the moment: live, as shown then; of answers that could not be had anew, until when they held. */
function showMoment() {
  const { basis, at, tz } = question;
  const kept = lost && drawn.question === writeQuestion(question);
  document.documentElement.toggleAttribute("data-kept", kept);
  const moment = at === null ? "" : inWords(at, tz);
  const now = kept ? `live until ${timeInWords(drawn.at, tz)}` : "live";
  $("mode").dataset.basis = basis;
  $("mode-words").textContent = { latest: now, corrected: `corrected ${moment}`, as_shown: `as shown ${moment}` }[basis];
}

/** Brings the screen's section to the front; the first time it is built. */
function stage(one) {
  if (!sections.has(one.name)) {
    const root = make("section", { id: `screen-${one.name}`, class: "screen", "aria-label": one.title, data: { state: "new" } });
    $("main").append(root);
    sections.set(one.name, root);
    one.build?.(root, context);
  }
  for (const [name, root] of sections) root.hidden = name !== one.name;
}

/** The change that a problem's guess stands for, or null: it may name a metric, a company, a zone's or window's spelling. */
function guessed(guess) {
  if (world?.metrics.some((one) => one.name === guess)) return { metric: guess };
  const company = companies.named(guess);
  return company ? { company: company.metakey } : null;
}

function setStatus(state, text) {
  $("status").dataset.state = state;
  if ($("status").textContent !== text) $("status").textContent = text;  // said once, however often it is so
}
