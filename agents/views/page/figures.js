/**
 * Figures: the numbers of a company beside what was agreed of them.
 *
 * What an action compares with its target is a value over a window up to the moment.  So that line and target can be
 * compared, a figure has windows of that length as its points, the last of them ending at the moment; of the window
 * `all` it has the sum so far.  A metric without a target is drawn over the data's time.
 */

import { chartSpan } from "./span.js";
import { DAY, HOUR, MINUTE, QUARTER, floorTo, fromRfc3339, rfc3339, unitAround } from "./time.js";

export const FIGURES_MAX = 12;
const POINTS_MAX = 60;
const UNITS_SHOWN = 12;
const UNITS = { m: MINUTE, h: HOUR, d: DAY };
const SUMMED = new Set(["count", "sum"]);

/** What is to be drawn: [{key, metric, window, span, targets: [{op, target, milestone}], value, holds, running}]. */
export function figures(now, rows, plain, world, clock) {
  const found = new Map();
  for (const row of rows) {
    for (const action of row.actions) {
      if (!action.metric) continue;
      const end = Math.min(now.at ?? floorTo(clock, QUARTER), fromRfc3339(row.deadline));
      const key = `${action.metric} ${action.window} ${end}`;
      const known = found.get(key);
      const target = { op: action.op, target: action.target, milestone: row.milestone, holds: action.holds };
      if (known) known.targets.push(target);
      else found.set(key, { key, metric: action.metric, window: action.window, targets: [target], value: action.value, ...stretch(now, action.window, end, action.metric, world, clock) });
    }
  }
  for (const metric of plain) {
    if ([...found.values()].some((one) => one.metric === metric)) continue;
    found.set(metric, { key: metric, metric, window: "all", targets: [], value: undefined, running: false, span: chartSpan({ ...now, window: "all" }, world.range, clock) });
  }
  return [...found.values()].slice(0, FIGURES_MAX);
}

/** The points that a window asks for: {span: {start, end, until, every} | null, running}. */
function stretch(now, window, end, metric, world, clock) {
  if (window === "all") {
    const known = world.metrics.find((one) => one.name === metric);
    return { span: chartSpan({ ...now, window: "all", at: end }, world.range, clock), running: SUMMED.has(known?.aggregate) };
  }
  if (!/^\d+[mhd]$/.test(window)) {
    let first = unitAround(window, end - 1, now.tz)[0];
    for (let i = 1; i < UNITS_SHOWN; i += 1) [first] = unitAround(window, first - 1, now.tz);
    return { span: { start: first, end, until: end, every: window }, running: false };
  }
  const length = Number(window.slice(0, -1)) * UNITS[window.at(-1)];
  const since = world.range?.from ?? end;
  const many = Math.min(Math.max(Math.ceil((end - since) / length), 1), POINTS_MAX);
  return { span: { start: end - many * length, end, until: end, every: window }, running: false };
}

/** The points of a series as the chart takes them; `running`: each the sum of all up to it. */
export function pointsOf(answer, running) {
  let sum = 0;
  return (answer?.points ?? []).map((one) => {
    sum += Number(one.value ?? 0);
    return { start: fromRfc3339(one.start), end: fromRfc3339(one.end), value: running ? sum : one.value ?? null, finality: running ? "" : one.finality };
  });
}

/** The parameters of a figure's series. */
export function seriesOf({ span }) {
  return { from: rfc3339(span.start), to: rfc3339(span.until), every: span.every };
}
