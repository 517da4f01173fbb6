/**
 * The moment: a slider over the data's time, a text field, day steps, and the basis switch.
 *
 * The slider counts quarter hours, the grain of every answer.  Under a pointer it snaps to what one pixel can mean (an
 * hour, a day), so a drag lands on round times; keys and the text field reach every quarter hour.
 */

import { DAY, HOUR, QUARTER, ceilTo, dayInWords, floorTo, fromText, inWords, toText, unitAround } from "./time.js";

const SNAPS = [QUARTER, HOUR, 3 * HOUR, 6 * HOUR];

export class TimeBar {
  /** onChange({at, basis}, done): `done` is false while the slider is still being dragged. */
  constructor(elements, onChange) {
    Object.assign(this, elements);
    this.onChange = onChange;
    this.range = null;
    this.tz = "UTC";
    this.at = null;
    this.basis = "latest";
    this.kept = null;  // the moment that was chosen before "latest", for the way back
    this.pointer = false;  // a pointer holds the slider
    this.dragged = false;  // and has moved it
    this.slider.addEventListener("pointerdown", () => Object.assign(this, { pointer: true, dragged: false }));
    this.slider.addEventListener("input", () => {
      this.dragged = true;
      this.slid(false);
    });
    this.slider.addEventListener("change", () => this.slid(true));
    // A drag that ends where it began sends no `change`; the release comes before a `change` that does come.
    for (const end of ["pointerup", "pointercancel"]) this.slider.addEventListener(end, () => setTimeout(() => this.released(), 0));
    this.slider.addEventListener("keydown", (event) => this.key(event));
    this.text.addEventListener("change", () => this.typed());
    this.text.addEventListener("input", () => this.fault(""));
    this.back.addEventListener("click", () => this.step(-1));
    this.forward.addEventListener("click", () => this.step(1));
    for (const radio of this.radios) radio.addEventListener("change", () => this.switched(radio.value));
  }

  /** Shows a question and the data's time ({from, to} in ms, or null while there is none). */
  show({ at, basis, tz }, range) {
    if (this.at !== at || this.tz !== tz) this.fault("");
    Object.assign(this, { at, basis, tz, range });
    if (at !== null) this.kept = at;
    for (const radio of this.radios) radio.checked = radio.value === basis;
    const usable = range !== null;
    for (const control of [this.slider, this.back, this.forward, ...this.radios]) control.disabled = !usable;
    if (usable) {
      this.first = floorTo(range.from, QUARTER);
      this.last = Math.max(ceilTo(range.to, QUARTER), this.first + QUARTER);
      this.slider.max = String((this.last - this.first) / QUARTER);
      // Under the pointer the thumb stays where the pointer is, though the moment is a rounder one.
      if (!this.pointer) this.slider.value = String(((at ?? this.last) - this.first) / QUARTER);
      this.slider.style.setProperty("--at", `${(100 * this.slider.value) / this.slider.max}%`);
      this.from.textContent = dayInWords(this.first, tz);
      this.to.textContent = dayInWords(this.last, tz);
    }
    this.slider.setAttribute("aria-valuetext", at === null ? "live" : inWords(at, tz));
    if (document.activeElement !== this.text || this.text.getAttribute("aria-invalid") !== "true") {
      this.text.value = at === null ? "" : toText(at, tz);
    }
  }

  slid(done) {
    const exact = this.first + Number(this.slider.value) * QUARTER;
    const at = this.pointer ? this.snap(exact) : exact;
    if (done) this.pointer = false;
    this.moved(at, done);
  }

  released() {
    if (this.pointer && this.dragged) this.slid(true);
    this.pointer = false;
  }

  /** The round time at or before an instant, as fine as the slider's pixels. */
  snap(ms) {
    const perPixel = (this.last - this.first) / Math.max(1, this.slider.clientWidth);
    if (this.last - ms < perPixel) return this.last;
    const step = SNAPS.find((width) => width >= perPixel);
    return Math.max(this.first, step ? floorTo(ms, step) : unitAround("day", ms, this.tz)[0]);
  }

  moved(at, done) {
    const basis = this.basis === "latest" ? "corrected" : this.basis;
    this.onChange({ at, basis }, done);
  }

  key(event) {
    const days = { PageUp: 7, PageDown: -7 }[event.key]
      ?? (event.shiftKey ? { ArrowRight: 1, ArrowUp: 1, ArrowLeft: -1, ArrowDown: -1 }[event.key] : undefined);
    if (days === undefined) return;
    event.preventDefault();
    this.step(days);
  }

  step(days) {
    if (this.range === null) return;
    const to = (this.at ?? this.last) + days * DAY;
    this.moved(Math.min(Math.max(to, this.first), this.last), true);
  }

  typed() {
    const typed = this.text.value.trim();
    if (!typed) return this.switched("latest");
    const at = fromText(typed, this.tz);
    if (at === null) return this.fault("Write a moment such as 2013-05-12 12:00, or 2013-05-12T12:00:00Z.");
    this.fault("");
    return this.moved(floorTo(at, QUARTER), true);
  }

  switched(basis) {
    if (basis === "latest") this.onChange({ at: null, basis }, true);
    else this.onChange({ at: this.at ?? this.kept ?? this.last, basis }, true);
  }

  fault(words) {
    this.error.textContent = words;
    this.error.hidden = !words;
    if (words) this.text.setAttribute("aria-invalid", "true");
    else this.text.removeAttribute("aria-invalid");
  }
}
