/**
 * Live: the worker says when the value on the screen has changed, so that nobody has to ask for it every few seconds.
 *
 *     question  ->  /v1/stream  ->  a frame that is not what the screen shows  ->  the page asks everything again
 *
 * The frame itself is not shown: chart and breakdown belong to the same moment as the number.
 */

const CLOCK = new Set(["at", "shown_lag_ms", "lag_ms"]);  // they move with the time of asking

export class Live {
  /** onChange: what is on the screen is no more what the worker answers */
  constructor(onChange) {
    this.onChange = onChange;
    this.path = "";
    this.source = null;
    this.shown = "";
  }

  /** Whether changes are told: then asking every few seconds is of no use. */
  get open() {
    return this.source?.readyState === EventSource.OPEN;
  }

  /** Follows the value of a question; `parameters` null: none.  `answer` is what the screen shows of it, or null. */
  follow(parameters, answer) {
    this.shown = answer === null ? "" : content(answer);
    const path = parameters === null ? "" : `/v1/stream?${new URLSearchParams(parameters)}`;
    if (path === this.path && this.source?.readyState !== EventSource.CLOSED) return;
    this.source?.close();
    this.path = path;
    this.source = path === "" ? null : new EventSource(path);
    this.source?.addEventListener("value", (event) => {
      if (content(JSON.parse(event.data)) !== this.shown) this.onChange();
    });
  }
}

function content(answer) {
  return JSON.stringify(answer, (key, value) => (CLOCK.has(key) ? undefined : value));
}
