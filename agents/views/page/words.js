/** Words and numbers as people read them.  Nothing here decides anything: the exact value stays in `data-value`. */

const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const fine = new Intl.NumberFormat("en", { maximumFractionDigits: 2 });
const finest = new Intl.NumberFormat("en", { maximumSignificantDigits: 4 });
const percent = new Intl.NumberFormat("en", { style: "percent", minimumFractionDigits: 1, maximumFractionDigits: 2 });
const short = new Intl.NumberFormat("en", { notation: "compact", maximumFractionDigits: 2 });

const REASONS = {
  no_events: "There are no events in this window.",
  division_by_zero: "The formula divides by zero here.",
  before_start: "This lies before the data begins.",
  stale: "A source has not said enough to answer.",
  erased: "The data was erased.",
  denied: "You may not see this number.",
  history_unavailable_before: "The history of this time is no longer kept.",
};

const FINALITY = {
  open: "events of this time may still come",
  provisional: "complete, may still be corrected",
  final: "complete, and settled",
  corrected: "changed after it was settled",
};

const BASIS = {
  latest: "The newest answer: everything recorded, as known now.",
  corrected: "That moment as known now, with everything that arrived or was corrected later.",
  as_shown: "That moment as it was known then: later arrivals and corrections are left out.",
};

const WINDOWS = { all: "All time", year: "Calendar year", month: "Calendar month", week: "Calendar week", day: "Calendar day" };
const LENGTHS = { m: ["minute", "minutes"], h: ["hour", "hours"], d: ["day", "days"] };

export function number(value, unit) {
  if (value === null || value === undefined) return "–";
  const n = Number(value);
  if (!Number.isFinite(n)) return String(value);  // `last` may be a text
  if (unit === "ratio") return percent.format(n);
  if (Number.isInteger(n)) return whole.format(n);
  return Math.abs(n) < 1 ? finest.format(n) : fine.format(n);
}

/** The labels of an axis: as many digits as tell its ticks, `step` apart, from each other. */
export function axisNumbers(values, unit) {
  const scale = unit === "ratio" ? 100 : 1;
  const step = values.length > 1 ? Math.abs(values[1] - values[0]) * scale : 1;
  const largest = Math.max(...values.map(Math.abs)) * scale;
  if (largest >= 1000 && step >= 10) return values.map((v) => short.format(v * scale));
  let digits = 0;
  while (digits < 6 && Math.abs(step * 10 ** digits - Math.round(step * 10 ** digits)) > 1e-6) digits += 1;
  const format = new Intl.NumberFormat("en", { style: scale === 100 ? "percent" : "decimal", maximumFractionDigits: digits, minimumFractionDigits: digits });
  return values.map((v) => format.format(v));
}

/** The unit beside a number; a ratio is shown as a percentage and needs none. */
export const unitWords = (unit) => (unit === "ratio" ? "" : unit ?? "");

export const reasonWords = (reason) => REASONS[reason] ?? (reason ? sentence(reason) : "There is no value.");
export const finalityWords = (finality) => FINALITY[finality] ?? "";
export const basisWords = (basis) => BASIS[basis];

export function windowWords(window) {
  if (WINDOWS[window]) return WINDOWS[window];
  const found = /^(\d+)([mhd])$/.exec(window);
  return found ? `Last ${found[1]} ${LENGTHS[found[2]][found[1] === "1" ? 0 : 1]}` : window;
}

/** on_time_rate → On time rate */
export function sentence(name) {
  const words = name.replaceAll("_", " ").trim();
  return words.charAt(0).toUpperCase() + words.slice(1);
}
