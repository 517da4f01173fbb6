/**
 * Live: the worker says when something on the screen has changed, so that nobody has to ask for it every few seconds.
 *
 *     question  ->  /v1/stream  ->  a frame that is not what the screen shows  ->  the page asks everything again
 *
 * The frame itself is not shown: chart, rows and number belong to the same moment.  A stream that was away and is back
 * says so, too: whatever happened meanwhile is asked for, so a gap closes itself.
 */

import { query } from "./api.js";

const CLOCK = new Set(["at", "shown_lag_ms", "lag_ms"]);  // they move with the time of asking
const STREAMS_MAX = 2;  // a browser has six connections to a worker, for all its windows

export class Live {
  /** onChange: what is on the screen is no more what the worker answers */
  constructor(onChange) {
    this.onChange = onChange;
    this.sources = new Map();
    this.shows = () => false;
  }

  /** Whether changes are told: then asking every few seconds is of no use. */
  get open() {
    return this.sources.size > 0 && [...this.sources.values()].every((one) => one.readyState === EventSource.OPEN);
  }

  /** Follows what a screen names, a list of parameters; shows(kind, said): whether the screen shows what a frame says. */
  follow(list, shows = () => false) {
    this.shows = shows;
    const paths = new Set(list.slice(0, STREAMS_MAX).map((parameters) => `/v1/stream?${query(parameters)}`));
    for (const [path, source] of this.sources) {
      if (paths.has(path) && source.readyState !== EventSource.CLOSED) continue;
      source.close();
      this.sources.delete(path);
    }
    for (const path of paths) if (!this.sources.has(path)) this.sources.set(path, this.listen(path));
  }

  listen(path) {
    const source = new EventSource(path);
    let lost = false;
    source.addEventListener("error", () => { lost = true; });
    source.addEventListener("open", () => {
      if (lost) this.onChange();
      lost = false;
    });
    for (const kind of ["value", "milestone"]) {
      source.addEventListener(kind, (event) => {
        if (!this.shows(kind, JSON.parse(event.data))) this.onChange();
      });
    }
    source.addEventListener("revoked", () => this.onChange());
    return source;
  }
}

/** What an answer says, without what moves with the clock: two with the same content need no new drawing. */
export function content(answer) {
  return JSON.stringify(answer, (key, value) => (CLOCK.has(key) ? undefined : value));
}
