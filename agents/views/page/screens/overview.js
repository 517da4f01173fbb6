/**
 * The organisation: how far its companies are at the moment looked at, how its sources do, and what did not fit.
 *
 *     /v1/milestones at T   ->  a line a milestone, a link a state  ->  the companies in it
 *     /v1/quality           ->  a line a source: when it was heard last, what it promised
 *     /v1/dead-letters      ->  a line a problem
 *
 * Milestones and sources follow the slider and the switch; dead letters are what they are now, and say so.
 */

import { Problem } from "../api.js";
import { make, redraw } from "../element.js";
import { content } from "../live.js";
import { STATES, card, moment, needWords, nothing, pill, termWords } from "../pieces.js";
import { dayInWords, fromRfc3339, inWords, rfc3339 } from "../time.js";
import * as words from "../words.js";
import { sources } from "./sources.js";

const PAGES_MAX = 5;  // of a thousand standings each
const NAMES_MAX = 40;  // milestones that one stream follows; the worker takes fifty questions
const $ = (id) => document.getElementById(id);

export default { name: "overview", title: "Overview", build, heading, show, ask, draw, failed, follows, shows };

function heading(question, world) {
  return world.org || "Overview";
}

async function ask(now, { get, signal, world }) {
  if (!world.org) return { empty: "No definitions yet", told: null };
  const when = now.at === null ? { basis: now.basis } : { basis: now.basis, at: rfc3339(now.at) };
  const parts = await Promise.allSettled([
    standings(get, when, signal),
    get("/v1/dead-letters", { limit: 20 }, signal),
    get("/v1/status", {}, signal),
    get("/v1/quality", when, signal),
  ]);
  signal.throwIfAborted();
  const reasons = parts.map((one) => (one.status === "rejected" ? one.reason : null));
  // A worker of an earlier release has no such call: the screen says so in its place.
  if (reasons[3] instanceof Problem && reasons[3].status === 404) reasons[3] = null;
  const [told, letters, status, quality] = parts.map((one) => one.value ?? null);
  return { told, letters, status, quality, reasons, failures: reasons.filter(Boolean) };
}

/** Every standing at the moment, page by page up to the bound. */
async function standings(get, when, signal) {
  const rows = [];
  let next = null;
  for (let page = 0; page < PAGES_MAX && (page === 0 || next !== null); page += 1) {
    const told = await get("/v1/milestones", { ...when, limit: 1000, next }, signal);
    rows.push(...told.milestones);
    next = told.next;
  }
  return { rows, more: next !== null };
}

function follows(now, answers) {
  const names = [...new Set((answers.told?.rows ?? []).map((row) => row.milestone))];
  return names.length ? [{ milestone: names.slice(0, NAMES_MAX), basis: now.basis }] : [];
}

function shows(answers, kind, said) {
  const shown = answers.told?.rows.find((row) => row.plan === said.plan && row.milestone === said.milestone && row.company === said.company);
  return shown !== undefined && content(shown) === content(said);
}

// ---- the section -------------------------------------------------------------------------------------------------

function build(root) {
  root.append(
    make("header", { class: "head" }, make("h2", { id: "overview-title", text: "Overview" }), make("p", { id: "overview-words", class: "muted" })),
    make("div", { id: "welcome", hidden: true },
      card("begin", "Nothing is defined yet", {},
        make("p", { text: "A bundle says which sources there are, what their events mean and what is counted of them." }),
        make("ol", { class: "begin" },
          make("li", {}, make("code", { text: "milepost init" }), " writes one to begin with."),
          make("li", {}, make("code", { text: "milepost apply" }), " puts it in force."),
          make("li", {}, make("code", { text: "milepost send events.ndjson" }), " brings the first events; this page fills itself.")))),
    make("ul", { class: "tiles", id: "tiles", "aria-label": "In short" }),
    card("portfolio", "Milestones", {}, make("div", { id: "portfolio-list" })),
    make("div", { class: "pair" },
      card("sources", "Sources", {}, make("div", { id: "sources-list" })),
      card("letters", "What did not fit", { beside: make("p", { class: "muted", text: "as it is now" }) }, make("div", { id: "letters-list" }))));
  for (const id of ["portfolio-list", "sources-list", "letters-list"]) $(id).append(make("div", { class: "waiting", "aria-hidden": "true" }));
}

function show(root, question, { world }) {
  $("overview-title").textContent = world?.org || "Overview";
  const { basis, at, tz } = question;
  $("overview-words").textContent = basis === "latest" ? "How things stand now." : `How things stood on ${inWords(at, tz)}, ${basis === "as_shown" ? "as known then" : "as known now"}.`;
}

function failed(root, now, problem) {
  begun(root, true);
  for (const id of ["portfolio-list", "sources-list", "letters-list"]) $(id).replaceChildren(nothing(problem.title));
  $("tiles").replaceChildren();
}

function draw(root, now, answers, { href, world }) {
  begun(root, !answers.empty);
  if (answers.empty) return;
  const { told, letters, status, quality, reasons } = answers;
  redraw($("tiles"), tiles(answers, world, href));
  redraw($("portfolio-list"), told === null ? nothing(reasons[0].title) : portfolio(now, told, world, href));
  redraw($("sources-list"), reasons[3] ? nothing(reasons[3].title) : sources(quality, now.tz), line(status));
  redraw($("letters-list"), letters === null ? nothing(reasons[1].title) : problems(letters, now.tz));
}

/** Before the first definitions the way to them stands in the place of everything else. */
function begun(root, so) {
  $("welcome").hidden = so;
  for (const part of root.querySelectorAll(".tiles, #portfolio, .pair")) part.hidden = !so;
}

function tiles({ told, letters, quality }, world, href) {
  const rows = told?.rows ?? null;
  const reached = rows?.filter((row) => row.state === "achieved").length;
  const lost = letters?.problems.reduce((sum, one) => sum + (one.open ?? one.count), 0);
  const unmatched = quality?.sources.reduce((sum, one) => sum + (one.unmatched.events ?? 0), 0);
  return [
    tile("companies", `${world.companies.length}${world.more ? "+" : ""}`, "companies", href({ screen: "company", company: "" })),
    tile("achieved", rows === null ? "–" : words.number(reached), rows === null ? "milestones achieved" : `of ${words.number(rows.length)} milestones achieved`, "#portfolio"),
    tile("unmatched", unmatched === undefined ? "–" : words.number(unmatched), "events of no known company", "#sources"),
    tile("dead-letters", lost === undefined ? "–" : words.number(lost), lost === 1 ? "dead letter not repaired" : "dead letters not repaired", "#letters", lost > 0),
  ];
}

function tile(name, figure, label, to, bad = false) {
  return make("li", { data: { tile: name } }, make("a", { href: to, data: { key: `tile ${name}`, bad: bad ? "" : undefined } },
    make("span", { class: "figure", text: figure }), " ", make("span", { class: "label", text: label })));
}

// ---- milestones --------------------------------------------------------------------------------------------------

/** A line a milestone, under its plan: a link a state with the number of companies in it; the chosen one lists them. */
function portfolio(now, told, world, href) {
  const plans = new Map();
  for (const row of told.rows) {
    const of = plans.get(row.plan) ?? plans.set(row.plan, new Map()).get(row.plan);
    if (of.has(row.milestone)) of.get(row.milestone).push(row);
    else of.set(row.milestone, [row]);
  }
  if (!plans.size) return nothing("No plan was in force then, or no company is on one.", "Milestones and plans are declared in the bundle; `milepost apply` puts it in force.");
  const more = told.more ? make("p", { class: "muted", text: `These are the first ${words.number(told.rows.length)} standings; there are more.` }) : null;
  return [...[...plans].map(([plan, milestones]) => make("section", { class: "plan", "aria-label": `Plan ${words.sentence(plan)}` },
    make("h4", { text: words.sentence(plan) }),
    make("ul", { class: "milestones" }, [...milestones].map(([name, rows]) => milestone(now, plan, name, rows, world, href))))), more];
}

function milestone(now, plan, name, rows, world, href) {
  const counts = new Map();
  for (const row of rows) counts.set(row.state, (counts.get(row.state) ?? 0) + 1);
  const states = [...Object.keys(STATES), ...counts.keys()].filter((one, i, all) => counts.has(one) && all.indexOf(one) === i);
  const chosen = now.own.plan === plan && now.own.milestone === name ? now.own.state : null;
  const unit = (metric) => world.metrics.find((one) => one.name === metric)?.unit;
  const [first] = rows;
  const terms = first.actions.filter((one) => one.affects !== false).map((one) => termWords(one, unit(one.metric)));
  const need = needWords(first.need, terms.length);
  return make("li", { data: { milestone: name, plan } },
    make("div", { class: "about" },
      make("p", { class: "name", text: words.sentence(name) }),
      make("p", { class: "muted", text: [need && `${need}:`, terms.join("; ")].filter(Boolean).join(" ") }),
      make("p", { class: "muted", text: `by ${dayInWords(fromRfc3339(first.deadline), now.tz)}` })),
    make("div", { class: "standing" },
      make("div", { class: "bar-of", "aria-hidden": "true" }, states.map((state) => segment(state, counts.get(state) / rows.length))),
      make("ul", { class: "chips", "aria-label": `${words.sentence(name)}: companies by state` }, states.map((state) => make("li", {}, make("a", {
        class: "chip", data: { state, count: String(counts.get(state)), key: `${plan} ${name} ${state}` }, title: STATES[state]?.[1],
        "aria-current": chosen === state ? "true" : null,
        href: href({ own: chosen === state ? {} : { plan, milestone: name, state } }),
        text: `${words.number(counts.get(state))} ${STATES[state]?.[0] ?? words.sentence(state)}`,
      }))))),
    chosen !== null ? companies(now, name, chosen, rows.filter((row) => row.state === chosen), href) : null);
}

function segment(state, share) {
  const made = make("span", { data: { state } });
  made.style.flexGrow = String(share);
  return made;
}

/** The companies in a state, each the way to its screen. */
function companies(now, name, state, rows, href) {
  const sorted = [...rows].sort((a, b) => (a.name ?? "").localeCompare(b.name ?? "", "en"));
  return make("div", { class: "those", role: "region", "aria-label": `${words.sentence(name)}: ${STATES[state]?.[0] ?? state}` },
    rows.length ? make("ul", {}, sorted.map((row) => make("li", {},
      make("a", { href: href({ screen: "company", company: row.company }), data: { company: row.company, key: `those ${row.company}` }, text: row.name || row.company }),
      row.achieved_at ? make("span", { class: "muted" }, " since ", moment(row.achieved_at, now.tz)) : null)))
      : make("p", { class: "muted" }, "No company is ", pill(state), " at this moment."));
}

// ---- sources and dead letters ------------------------------------------------------------------------------------

/** Whether the line has taken everything that came. */
function line(status) {
  if (!status?.lag) return null;
  const waiting = Object.values(status.lag).reduce((sum, one) => sum + one, 0);
  return make("p", { class: "muted", id: "line-lag", data: { lag: String(waiting) },
    text: waiting ? `${words.number(waiting)} records wait to be taken.` : "Everything that came has been taken." });
}

function problems({ problems: rows, next }, tz) {
  if (!rows.length) return nothing("Everything fitted.", "An event that breaks its contract would stand here, with an example and the way to repair it.");
  return [make("div", { class: "wide" }, make("table", { id: "problems" },
    make("thead", {}, make("tr", {}, ["Problem", "Last seen"].map((text) => make("th", { scope: "col", text })), make("th", { scope: "col", class: "num", text: "Events" }))),
    make("tbody", {}, rows.map((one) => make("tr", { data: { problem: one.problem, count: String(one.count) } },
      make("th", { scope: "row" }, make("span", { text: words.sentence(one.reason ?? "unknown") }),
        one.state && one.state !== "open" ? make("span", { class: "tag", text: one.state }) : null, make("span", { class: "muted", text: [one.source, one.type, one.detail].filter(Boolean).join(" · ") }),
        one.example ? make("span", { class: "muted" }, "for example ", make("code", { text: one.example })) : null),
      make("td", {}, one.last_k_ms ? moment(one.last_k_ms, tz) : "–"),
      make("td", { class: "num", text: words.number(one.count) })))))),
  make("p", { class: "muted" }, next ? "There are more problems. " : "", make("code", { text: "milepost dead-letters" }), " lists, explains and repairs them.")];
}
