/**
 * A company: what it is known as and why, how its plans stand, its numbers beside their targets, what it did last.
 *
 *     /v1/companies/{company}          keys and the links that hold them together
 *     /v1/milestones, /v1/plans        what was agreed, what has come of it, with evidence
 *     …/series, …/value                its numbers (figures.js)
 *     /v1/signals                      its latest signals
 *     /v1/records/{type}/{id}          the records that are called as one of its keys, and the one that is looked up
 */

import { Problem } from "../api.js";
import { chains } from "../chains.js";
import { make, redraw } from "../element.js";
import { FIGURES_MAX, figures, seriesOf } from "../figures.js";
import { content } from "../live.js";
import { card, nothing } from "../pieces.js";
import { asked } from "../question.js";
import { inWords } from "../time.js";
import * as words from "../words.js";
import { Figures } from "./company/figures.js";
import { knownAs } from "./company/keys.js";
import { plans } from "./company/plans.js";
import { drawRecords, recordCard } from "./company/records.js";
import { signals } from "./company/signals.js";

const SIGNALS = 12;
const NAMES_MAX = 24;  // metrics and milestones each that the stream follows; the worker takes fifty questions
const RECORDS_MAX = 24;  // looked up under the company's own keys
const LISTED_MAX = 60;
const $ = (id) => document.getElementById(id);
let drawn;

export default { name: "company", title: "Company", companies: true, build, heading, show, ask, draw, failed, follows, shows };

function heading(question, world) {
  return question.company ? world.nameOf(question.company) : "Companies";
}

async function ask(now, { get, signal, world }) {
  if (!now.company || !world.org) return { none: true, empty: world.org ? "" : "No definitions yet" };
  const common = asked(now);
  const when = { basis: common.basis, at: common.at, company: now.company };
  const company = await get(`/v1/companies/${encodeURIComponent(now.company)}`, {}, signal);
  const settled = async (calls) => {
    const all = await Promise.allSettled(calls);
    signal.throwIfAborted();
    return all.map((one) => (one.status === "fulfilled" ? { said: one.value, why: null } : { said: null, why: one.reason }));
  };
  const [standing, agreed, latest, types] = await settled([
    get("/v1/milestones", { ...when, limit: 1000 }, signal), get("/v1/plans", {}, signal),
    get("/v1/signals", { ...when, limit: SIGNALS }, signal), get("/v1/records", {}, signal),
  ]);
  const rows = standing.said?.milestones ?? [];
  const named = new Set(rows.map((row) => row.plan));
  const plain = (agreed.said?.plans ?? []).filter((one) => named.has(one.plan)).flatMap((one) => one.metrics);
  const first = world.metrics.slice(0, FIGURES_MAX / 2).map((one) => one.name);
  const wanted = figures(now, rows, plain.length || rows.length ? plain : first, world, Date.now());
  const path = (one) => `/v1/metrics/${encodeURIComponent(one.metric)}`;
  const records = lookups(now, company, types.said?.records ?? []);
  const [series, values, found] = await Promise.all([
    settled(wanted.map((one) => (one.span === null ? null : get(`${path(one)}/series`, { ...common, ...seriesOf(one) }, signal)))),
    settled(wanted.map((one) => (one.value === undefined ? get(`${path(one)}/value`, { ...common, window: "all" }, signal) : null))),
    settled(records.map(([type, id]) => get(`/v1/records/${encodeURIComponent(type)}/${encodeURIComponent(id)}`, { basis: common.basis, at: common.at }, signal))),
  ]);
  const parts = [standing, agreed, latest, types, ...series, ...values, ...found];
  // A worker of an earlier release has no such call: the screen says so in its place.
  const failures = parts.map((one) => one.why).filter((why) => why && !(why === latest.why && why instanceof Problem && why.status === 404));
  return { company, standing, agreed, latest, types, wanted, series, values, records, found, failures };
}

/** Which records are looked up: those called as one of the company's keys, and the one in the address: [[type, id]]. */
function lookups(now, company, types) {
  const ids = [...new Set(company.alternate_keys.map((one) => one.value))];
  const own = types.flatMap(({ type }) => ids.map((id) => [type, id])).slice(0, RECORDS_MAX);
  const [type, ...id] = (now.own.record ?? "").split("/");
  const known = types.some((one) => one.type === type) && id.join("/");
  return known && !own.some(([of, as]) => of === type && as === known) ? [[type, known], ...own] : own;
}

function follows(now, answers) {
  if (answers.none) return [];
  const milestone = [...new Set((answers.standing.said?.milestones ?? []).map((row) => row.milestone))].slice(0, NAMES_MAX);
  const metric = answers.wanted.filter((one) => one.value === undefined).map((one) => one.metric).slice(0, NAMES_MAX);
  return milestone.length || metric.length ? [{ ...asked(now), metric, milestone }] : [];
}

function shows(answers, kind, said) {
  if (kind === "value") return answers.values.some((one) => one.said !== null && content(one.said) === content(said));
  return (answers.standing.said?.milestones ?? []).some((row) => content(row) === content(said));
}

// ---- the section -------------------------------------------------------------------------------------------------

function build(root, { change }) {
  root.append(
    make("header", { class: "head" }, make("h2", { id: "whose" }), make("p", { id: "whose-words", class: "muted" })),
    make("div", { id: "choose", hidden: true }),
    make("div", { id: "about", class: "screen" },
      card("plans", "Plans", {}, make("div", { id: "plans-list" })),
      card("numbers", "Numbers", {}, make("div", { id: "figures", class: "figures" })),
      card("keys", "Known as", {}, make("div", { id: "keys-list" })),
      card("signals", "Latest signals", {}, make("div", { id: "signals-list" })),
      recordCard((record) => change({ own: { record } }))));
  for (const id of ["plans-list", "keys-list", "signals-list"]) $(id).append(make("div", { class: "waiting", "aria-hidden": "true" }));
  drawn = new Figures($("figures"));
}

function show(root, question, { world }) {
  const { company, basis, at, tz } = question;
  $("whose").textContent = company ? world?.nameOf(company) ?? company : "Companies";
  const when = basis === "latest" ? "As things stand now." : `As things stood on ${inWords(at, tz)}, ${basis === "as_shown" ? "as known then" : "as known now"}.`;
  $("whose-words").textContent = company ? when : "Choose one.";
  $("about").hidden = !company;
  $("choose").hidden = Boolean(company);
}

function failed(root, now, problem) {
  for (const id of ["plans-list", "keys-list", "signals-list"]) $(id).replaceChildren(nothing(problem.title, problem.detail));
  drawn.clear(problem.title);
}

function draw(root, now, answers, { href, world }) {
  if (answers.none) {
    $("about").hidden = true;
    $("choose").hidden = false;
    redraw($("choose"), chooser(world, href));
    return;
  }
  const { company, standing, agreed, latest } = answers;
  $("whose").textContent = company.name;
  redraw($("plans-list"), standing.why ? nothing(standing.why.title) : plans(now, standing.said.milestones, agreed.said?.plans ?? [], world));
  redraw($("keys-list"), knownAs(now, company, chains(company.metakey, company.links, now.basis === "as_shown" ? now.at : Infinity)));
  redraw($("signals-list"), signals(now, latest));
  drawn.draw(now, answers, world, href);
  drawRecords(now, answers);
}

/** Every company, the way to its screen. */
function chooser(world, href) {
  if (!world.companies.length) return nothing("There are no companies yet.", "A company is there as soon as an event names one of its keys.");
  const some = world.companies.slice(0, LISTED_MAX);
  return make("section", { class: "card", "aria-label": "All companies" },
    make("ul", { class: "columns" }, some.map((one) => make("li", {}, make("a", { href: href({ company: one.metakey }), data: { company: one.metakey, key: one.metakey }, text: one.name || one.metakey })))),
    some.length < world.companies.length || world.more ? make("p", { class: "muted", text: `These are the first ${words.number(some.length)}: search beside to find others.` }) : null);
}
