/**
 * The pipeline: the line in its order as it runs now, each leg with its stages, rates, lag and errors.
 *
 *     /v1/topology: what is there  +  /v1/status: counts since the start  ->  nodes in a list, arrows between them
 *     /v1/dead-letters             ->  errors by stage             a value as of the moment  ->  how far it was then
 *
 * Rates are differences of counts between two askings, so the first drawing has none.
 */

import { Problem } from "../api.js";
import { anchors, described, docsLink } from "../docs.js";
import { make, redraw } from "../element.js";
import { button, refusal, settled, table, terms } from "../parts.js";
import { asked } from "../question.js";
import { askRaw, rawEvent } from "../raw.js";
import { Dialog } from "../dialog.js";
import { fromRfc3339, inWords, lengthInWords } from "../time.js";
import { number, sentence } from "../words.js";

const PROBLEMS = 100;
const SAMPLES = { keptMs: 30_000, leastMs: 900, max: 32 };
const LAGGING = 1000;  // records behind, from where on a leg is said to lag
const DESCRIBED = { ingest: [["source", "Sources"], ["rule", "Rules"]], measure: [["metric", "Metrics"]], record: [["record", "Records"]], achieve: [["milestone", "Milestones"]] };
const STAGES = { decode: "contracts", identity: "keys", signals: "rules", writes: "records", metrics: "metrics", records: "records", recognition: "milestones" };
const $ = (id) => document.getElementById(id);
let samples = [];  // [{at, worker, took: leg -> records}], oldest first
let dialog;
let last = null;  // the answers that are drawn
let ids = new Set();  // headings of the documentation, as far as they are known

export default { name: "pipeline", title: "Pipeline", always: true, build, ask, draw, failed };

async function ask(question, { get, signal, world }) {
  const { event } = question.own;
  const first = world?.metrics[0]?.name;
  const failures = [];
  // While a partition is restored no number can be had; the line is then all the more of use.
  const passing = (error) => {
    if (!(error instanceof Problem)) throw error;
    failures.push(error);
    return null;
  };
  const [topology, status, problems, moment, raw] = await Promise.all([
    get("/v1/topology", {}, signal),
    get("/v1/status", {}, signal),
    settled(get("/v1/dead-letters", { limit: PROBLEMS }, signal)),
    first === undefined ? null : settled(get(`/v1/metrics/${encodeURIComponent(first)}/value`, asked({ ...question, company: "" }), signal)).catch(passing),
    event ? askRaw(event, { get, signal }) : null,
  ]);
  return { topology, rates: measured(topology, status), status, problems, moment, raw, failures };
}

function build(root, { change }) {
  dialog = new Dialog("event", () => change({ own: { event: "" } }));
  root.append(
    make("section", { class: "card", "aria-labelledby": "line-title" },
      make("div", { class: "row" }, make("h2", { id: "line-title", text: "The line" }), make("p", { id: "line-state", class: "state" })),
      make("p", { id: "line-moment", class: "muted" }),
      make("ol", { id: "line", class: "line" })),
    make("section", { class: "card", "aria-labelledby": "errors-title" },
      make("h2", { id: "errors-title", text: "Dead letters" }),
      make("div", { id: "errors" })),
    dialog.element);
}

function draw(root, question, answers, { change }) {
  const { topology, status, rates, problems, moment } = answers;
  const state = stateOf(status);
  $("line-state").dataset.state = state.name;
  $("line-state").textContent = state.words;
  $("line-moment").replaceChildren(...momentOf(question, moment));
  const line = () => redraw($("line"), nodes(topology, { status, rates, ids, live: question.basis === "latest" }));
  line();
  anchors().then((found) => {
    const more = found.size !== ids.size;
    ids = found;
    if (more && root.isConnected && last === answers) line();
  });
  last = answers;
  redraw($("errors"), errors(problems, question.tz, (position) => change({ own: { event: position } })));
  const { event } = question.own;
  if (event) dialog.show(event, event, "A raw event", rawEvent(event, answers.raw, question.tz));
  else dialog.hide();
}

function failed(root, question, problem) {
  samples = [];
  last = null;
  $("line-state").dataset.state = "unknown";
  $("line-state").textContent = problem ? "Not known just now" : "";
  $("line-moment").textContent = "";
  $("line").replaceChildren();
  $("errors").replaceChildren();
}

// ---- rates -------------------------------------------------------------------------------------------------------

/** Leg -> records a second that its first stage took, since the oldest sample that is kept; null: not known yet. */
function measured({ legs = [] }, status) {
  const took = {};
  for (const leg of legs) {
    const firsts = Object.entries(leg.fates ?? {}).filter(([, one]) => one.kind === "result" && one.stage === leg.stages[0]);
    if (status.legs[leg.name]) took[leg.name] = sum(firsts.map(([fate]) => status.legs[leg.name].fates[fate] ?? 0));
  }
  const now = { at: Date.now(), worker: status.worker, open: JSON.stringify(Object.values(status.legs).map((leg) => leg.open)), took };
  // Another worker, or other partitions: its counts are no continuation.
  samples = samples.filter((one) => one.worker === now.worker && one.open === now.open && now.at - one.at <= SAMPLES.keptMs).slice(-SAMPLES.max);
  const before = samples.find((one) => now.at - one.at >= SAMPLES.leastMs);
  samples.push(now);
  return Object.fromEntries(Object.keys(took).map((name) => [name, before ? Math.max(0, took[name] - before.took[name]) / ((now.at - before.at) / 1000) : null]));
}

// ---- the line ----------------------------------------------------------------------------------------------------

function nodes(topology, context) {
  const found = [];
  for (const leg of topology.legs ?? []) {
    if (leg.reads) found.push(topicNode(leg.reads, topology));
    found.push(legNode(leg, context));
  }
  return found;
}

function topicNode(name, topology) {
  return make("li", { class: "topic", data: { topic: name } },
    make("span", { class: "arrow", "aria-hidden": "true" }),
    make("span", { class: "hidden-label", text: "Topic" }), " ", make("code", { text: name }),
    make("span", { class: "muted", text: `${topology.topics[name]} partitions` }));
}

function legNode(leg, { status, rates, ids, live }) {
  const now = status.legs[leg.name];
  const lag = now ? sum(Object.values(now.lag)) : null;
  const dead = now ? sum(Object.entries(now.fates).filter(([fate]) => leg.fates[fate]?.kind === "dead").map(([, n]) => n)) : null;
  const stalled = Object.entries(now?.stalled ?? {});
  const state = !now ? "" : now.restoring.length ? "restoring" : stalled.length ? "stalled" : lag >= LAGGING ? "lagging" : "flowing";
  return make("li", { class: "leg", data: { leg: leg.name, state, lag: lag === null ? "" : String(lag), dead: dead === null ? "" : String(dead), rate: rates[leg.name] === null ? "" : String(rates[leg.name]) } },
    make("span", { class: "arrow", "aria-hidden": "true" }),
    make("article", { "aria-labelledby": `leg-${leg.name}` },
      make("div", { class: "row" },
        make("h3", { id: `leg-${leg.name}` }, docsLink(ids, [`leg-${leg.name}`, ...(DESCRIBED[leg.name] ?? []).map(([kind]) => `${kind}s`)], leg.name)),
        make("p", { class: "muted", text: now ? `grouped by ${leg.grouped_by}` : `asks ${leg.asks.join(" and ")}` })),
      now ? make("dl", { class: "leg-figures" },
        figure("Rate", rates[leg.name] === null ? (live ? "measuring…" : "told live") : `${number(round(rates[leg.name]))} /s`),
        figure("Behind", lag === 0 ? "nothing" : `${number(lag)} records`),
        figure("Errors", number(dead), dead > 0),
        figure("Partitions here", number(now.open.length)),
        figure("On disk", bytes(sum(Object.values(now.bytes))))) : saidTo(status.milestones),
      now?.restoring.length ? make("p", { class: "warned", text: `Being restored: partitions ${now.restoring.join(", ")}.` }) : null,
      stalled.map(([partition, why]) => make("p", { class: "error", role: "alert", text: `Partition ${partition} stands still: ${why}` })),
      now ? stagesOf(leg, now, ids) : null,
      documented(leg.name, ids),
      make("details", { "data-key": `more ${leg.name}` }, make("summary", { text: "Stores and topics" }),
        terms([...(leg.stores ?? []).map((one) => [one.name, one.holds]), ["writes", leg.writes.join(", ")]]))));
}

function figure(term, text, bad = false) {
  return make("div", { class: bad ? "bad" : null }, make("dt", { text: term }), make("dd", { text }));
}

/** Up to when milestones have been said, over the partitions of this worker. */
function saidTo(milestones) {
  const told = Object.values(milestones ?? {}).filter(Boolean).sort();
  return make("dl", { class: "leg-figures" }, figure("Said up to", told.length ? inWords(fromRfc3339(told[0]), "UTC") : "nothing yet"));
}

/** A row a stage: what it took, passed over and refused since this worker began. */
function stagesOf(leg, now, ids) {
  const rows = leg.stages.map((stage) => {
    const of = (kind) => Object.entries(now.fates).filter(([fate]) => leg.fates[fate]?.stage === stage && leg.fates[fate].kind === kind);
    const total = (kind) => sum(of(kind).map(([, n]) => n));
    const counts = (kind) => Object.values(leg.fates).some((one) => one.stage === stage && one.kind === kind);
    const said = (kind) => (counts(kind) ? number(total(kind)) : "–");  // a stage that ends nothing so counts nothing so
    const why = of("dead").map(([fate, n]) => `${number(n)} ${sentence(fate.split(":")[1]).toLowerCase()}`).join(", ");
    const drops = of("drop").map(([fate, n]) => `${number(n)} ${leg.fates[fate].about}`).join(", ");
    return make("tr", { data: { stage, result: String(total("result")), drop: String(total("drop")), dead: String(total("dead")) } },
      make("th", { scope: "row" }, docsLink(ids, [`stage-${stage}`, STAGES[stage]], stage)),
      make("td", { class: "num", text: said("result") }),
      make("td", { class: "num", title: drops, text: said("drop") }),
      make("td", { class: total("dead") ? "num bad" : "num" }, said("dead"), why ? make("span", { class: "muted block", text: why }) : null));
  });
  return table(`Stages of ${leg.name}, since this worker began`, [{ head: "Stage" }, { head: "Went on", num: true }, { head: "Dropped", num: true }, { head: "Errors", num: true }], rows, { class: "stages" });
}

/** What of the definitions runs in a leg, as far as the documentation has headings for it. */
function documented(leg, ids) {
  const lists = (DESCRIBED[leg] ?? []).map(([kind, title]) => [title, described(ids, kind).map((name) => docsLink(ids, [`${kind}-${name}`], name))]);
  return lists.some(([, links]) => links.length)
    ? terms(lists.map(([title, links]) => [title, links.length ? make("ul", { class: "names" }, links.map((link) => make("li", {}, link))) : null])) : null;
}

function errors(problems, tz, open) {
  if (problems.problem) return refusal(problems.problem);
  const { problems: rows, next } = problems;
  if (!rows.length) return make("p", { id: "errors-empty", class: "muted", text: "Every record so far kept its contract." });
  const lines = rows.map((one) => make("tr", { data: { problem: one.problem, count: String(one.count) } },
    make("th", { scope: "row" }, sentence(one.reason), make("span", { class: "muted block", text: one.detail })),
    make("td", { text: one.stage }),
    make("td", { text: [one.source, one.type].filter(Boolean).join(" / ") }),
    make("td", { class: "num", text: number(one.count) }),
    make("td", { class: one.open ? "num bad" : "num", text: number(one.open) }),
    make("td", { class: "when", text: inWords(one.last_k_ms, tz) }),
    make("td", {}, one.example.startsWith("raw-events/")
      ? button(one.example, () => open(one.example), { class: "link", data: { key: one.problem, opens: one.example }, "aria-label": `The raw event ${one.example}` }) : one.example)));
  return [
    table("Dead letters by problem", [{ head: "Problem" }, { head: "Stage" }, { head: "From" }, { head: "Records", num: true }, { head: "To repair", num: true }, { head: "Last" }, { head: "Example" }], lines, { class: "problems" }),
    next ? make("p", { class: "muted", text: `These are the newest ${rows.length} problems.` }) : null,
  ];
}

// ---- words -------------------------------------------------------------------------------------------------------

function stateOf(status) {
  const legs = Object.values(status.legs);
  const restoring = sum(legs.map((leg) => leg.restoring.length));
  const stalled = legs.some((leg) => Object.keys(leg.stalled ?? {}).length);
  if (stalled) return { name: "stalled", words: "Stands still: see below" };
  if (restoring) return { name: "restoring", words: `Restoring ${restoring} ${restoring === 1 ? "partition" : "partitions"}` };
  if (!status.ready) return { name: "restoring", words: "Not ready yet" };
  const lag = sum(Object.values(status.lag));
  return lag >= LAGGING ? { name: "lagging", words: `${number(lag)} records behind` } : { name: "flowing", words: "Flowing" };
}

/** How far the line was at the moment that is looked at. */
function momentOf(question, answer) {
  const { basis, at, tz } = question;
  const now = "Rates, lag and errors are of now, of the worker that answers.";
  if (answer === null || answer.problem) return [now];
  const complete = fromRfc3339(answer.complete_to);
  const said = complete === null ? "" : `Complete to ${inWords(complete, tz)}. `;
  if (basis !== "as_shown") return [make("span", { id: "complete-now", data: { complete: answer.complete_to ?? "" }, text: said }), now];
  const lag = typeof answer.shown_lag_ms === "number" ? `${lengthInWords(answer.shown_lag_ms)} behind` : "not measured yet";
  return [make("span", { id: "shown-lag", data: { lag: String(answer.shown_lag_ms ?? ""), complete: answer.complete_to ?? "" }, text: `On ${inWords(at, tz)} the line was ${lag}. ${said}` }), now];
}

const sum = (values) => values.reduce((total, one) => total + one, 0);
const round = (n) => (n < 10 ? Math.round(n * 10) / 10 : Math.round(n));

function bytes(n) {
  const [unit, size] = [["GB", 1e9], ["MB", 1e6], ["kB", 1e3]].find(([, one]) => n >= one) ?? ["B", 1];
  return `${number(round(n / size))} ${unit}`;
}
