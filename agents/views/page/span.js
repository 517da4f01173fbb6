/**
 * What the chart shows of a question: the window's own time, in steps that a screen can hold.
 *
 *     window   all        the data's time, whole local days; the line ends at the moment
 *              28d 6h …   that long before the moment, from the start of the local day (or hour)
 *              year …     the calendar unit that holds the last instant before the moment
 */

import { DAY, HOUR, MINUTE, QUARTER, ceilTo, floorTo, unitAround } from "./time.js";

const UNITS = { m: MINUTE, h: HOUR, d: DAY };
const CALENDAR = ["year", "month", "week", "day"];

/**
 * {start, end, until, every}: the axis is [start, end), points are asked for [start, until); null when there is nothing
 * to ask (no data yet, or the moment lies before it).  `range` is the data's time {from, to} or null.
 */
export function chartSpan({ window, at, tz }, range, now) {
  const moment = at ?? ceilTo(now, QUARTER);
  let start, end, until;
  if (CALENDAR.includes(window)) {
    [start, end] = unitAround(window, moment - 1, tz);
    until = Math.min(end, moment);
  } else if (/^\d+[mhd]$/.test(window)) {
    const length = Number(window.slice(0, -1)) * UNITS[window.at(-1)];
    end = until = moment;
    start = length > 3 * DAY ? unitAround("day", end - length, tz)[0] : floorTo(end - length, length > 3 * HOUR ? HOUR : QUARTER);
  } else {
    if (range === null) return null;
    start = unitAround("day", range.from, tz)[0];
    end = unitAround("day", range.to, tz)[1];
    until = at === null ? end : Math.min(at, end);
  }
  if (!(start < until)) return null;
  return { start, end, until, every: step(end - start) };
}

function step(length) {
  if (length <= 3 * HOUR) return "15m";
  if (length <= 3 * DAY) return "1h";
  if (length <= 800 * DAY) return "1d";
  return length <= 3000 * DAY ? "7d" : "month";
}
