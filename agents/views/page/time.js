/**
 * Time in a zone: words, text fields, calendar units.  Instants are milliseconds since the epoch; a zone is an IANA
 * name.  The browser's own zone tables do the work, so a page never disagrees with itself; the worker's answer decides.
 */

export const MINUTE = 60_000;
export const QUARTER = 15 * MINUTE;
export const HOUR = 60 * MINUTE;
export const DAY = 24 * HOUR;

const MONTHS = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
const clocks = new Map();

/** True when this browser knows the zone. */
export function knowsZone(tz) {
  try {
    clock(tz);
    return true;
  } catch {
    return false;  // RangeError is the one way Intl says "no such zone"
  }
}

/** The browser's zone, "UTC" when it has none. */
export function browserZone() {
  return new Intl.DateTimeFormat().resolvedOptions().timeZone || "UTC";
}

/** {year, month 1–12, day, hour, minute, second} of an instant in a zone. */
export function fields(ms, tz) {
  const out = {};
  for (const { type, value } of clock(tz).formatToParts(ms)) if (type !== "literal") out[type] = Number(value);
  return out;
}

/** The instant at which a zone's clock shows these fields.  In a gap: the instant after it; shown twice: the first. */
export function instant({ year, month = 1, day = 1, hour = 0, minute = 0 }, tz) {
  const plain = utc(year, month, day, hour, minute);
  // A zone's offset near `plain` is one of those a day before and a day after; the larger offset is the earlier instant.
  const offsets = [offset(plain - DAY, tz), offset(plain + DAY, tz)].sort((a, b) => b - a);
  for (const candidate of offsets) {
    const ms = plain - candidate;
    if (offset(ms, tz) === candidate) return ms;
  }
  return plain - offsets[1];
}

/** The calendar unit (day, week, month, year; weeks begin on Monday) of a zone that holds an instant: [start, end). */
export function unitAround(unit, ms, tz) {
  const { year, month, day } = fields(ms, tz);
  const monday = day - ((new Date(utc(year, month, day)).getUTCDay() + 6) % 7);
  const bounds = {
    year: [{ year }, { year: year + 1 }],
    month: [{ year, month }, { year, month: month + 1 }],
    week: [{ year, month, day: monday }, { year, month, day: monday + 7 }],
    day: [{ year, month, day }, { year, month, day: day + 1 }],
  }[unit];
  if (!bounds) throw new RangeError(`no calendar unit is called ${unit}`);
  const [start, end] = bounds;  // a 13th month or a 0th day is carried over by `instant`
  return [instant(start, tz), instant(end, tz)];
}

export const floorTo = (ms, step) => Math.floor(ms / step) * step;
export const ceilTo = (ms, step) => Math.ceil(ms / step) * step;

/** RFC 3339 in UTC, as the addresses and the API use it: 2013-05-12T12:00:00Z. */
export function rfc3339(ms) {
  return new Date(ms).toISOString().replace(".000Z", "Z");
}

/** The instant of an RFC 3339 text with a zone, or null. */
export function fromRfc3339(text) {
  if (!/^\d{4}-\d\d-\d\dT\d\d:\d\d(:\d\d(\.\d+)?)?(Z|[+-]\d\d:\d\d)$/i.test(text ?? "")) return null;
  const ms = Date.parse(text);
  return Number.isNaN(ms) ? null : ms;
}

/** What a person types: "2013-05-12", "2013-05-12 12:00" in the zone, or RFC 3339 with its own; null when it is neither. */
export function fromText(text, tz) {
  const typed = text.trim();
  const own = fromRfc3339(typed.replace(" ", "T"));
  if (own !== null) return own;
  const found = /^(\d{4})-(\d\d?)-(\d\d?)(?:[T ]+(\d\d?):(\d\d))?$/.exec(typed);
  if (!found) return null;
  const [year, month, day, hour, minute] = found.slice(1).map((part) => Number(part ?? 0));
  const there = new Date(utc(year, month, day));
  const real = there.getUTCMonth() === month - 1 && there.getUTCDate() === day && hour < 24 && minute < 60;
  return real ? instant({ year, month, day, hour, minute }, tz) : null;
}

/** The text field's own form: "2013-05-12 12:00". */
export function toText(ms, tz) {
  const f = fields(ms, tz);
  return `${String(f.year).padStart(4, "0")}-${two(f.month)}-${two(f.day)} ${two(f.hour)}:${two(f.minute)}`;
}

/** "12 May 2013, 12:00". */
export function inWords(ms, tz) {
  const f = fields(ms, tz);
  return `${dayInWords(ms, tz)}, ${two(f.hour)}:${two(f.minute)}`;
}

/** "12:00:05". */
export function timeInWords(ms, tz) {
  const f = fields(ms, tz);
  return `${two(f.hour)}:${two(f.minute)}:${two(f.second)}`;
}

/** "12 May 2013". */
export function dayInWords(ms, tz) {
  const f = fields(ms, tz);
  return `${f.day} ${MONTHS[f.month - 1]} ${f.year}`;
}

/** A tick of the chart's axis: as much as the step between ticks needs, the year or the day when it begins. */
export function tick(ms, tz, stepMs, first) {
  const f = fields(ms, tz);
  const month = MONTHS[f.month - 1];
  if (stepMs >= 300 * DAY) return String(f.year);
  if (stepMs >= 27 * DAY) return first || f.month === 1 ? `${month}\n${f.year}` : month;
  if (stepMs >= DAY) return first ? `${f.day} ${month}\n${f.year}` : `${f.day} ${month}`;
  const time = `${two(f.hour)}:${two(f.minute)}`;
  return first || (f.hour === 0 && f.minute === 0) ? `${time}\n${f.day} ${month}` : time;
}

/** A length in words: "45 s", "12 min", "3 h", "5 d". */
export function lengthInWords(ms) {
  if (ms < 2 * MINUTE) return `${Math.round(ms / 1000)} s`;
  if (ms < 2 * HOUR) return `${Math.round(ms / MINUTE)} min`;
  if (ms < 2 * DAY) return `${Math.round(ms / HOUR)} h`;
  return `${Math.round(ms / DAY)} d`;
}

function offset(ms, tz) {
  const f = fields(ms, tz);
  return utc(f.year, f.month, f.day, f.hour, f.minute, f.second) - floorTo(ms, 1000);
}

function utc(year, month, day, hour = 0, minute = 0, second = 0) {
  const at = new Date(0);
  at.setUTCFullYear(year, month - 1, day);  // Date.UTC would read the year 13 as 1913
  at.setUTCHours(hour, minute, second);
  return at.getTime();
}

function clock(tz) {
  if (!clocks.has(tz)) {
    clocks.set(tz, new Intl.DateTimeFormat("en-GB", {
      timeZone: tz, calendar: "gregory", numberingSystem: "latn", hourCycle: "h23",
      year: "numeric", month: "numeric", day: "numeric", hour: "numeric", minute: "numeric", second: "numeric",
    }));
  }
  return clocks.get(tz);
}

const two = (n) => String(n).padStart(2, "0");
