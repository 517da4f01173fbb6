/**
 * One metric over time.  Counts, sums and distinct counts are bars, everything else a line; a point without a value is
 * a gap, never a zero.  A point that changed after it was settled wears a ring.  uPlot draws; colours come from the
 * style sheet, so the chart follows the page's scheme.
 */

import uPlot from "./vendor/uPlot.esm.js";
import { dayInWords, inWords, tick } from "./time.js";
import { axisNumbers, finalityWords, number, unitWords } from "./words.js";

const ADDITIVE = new Set(["count", "sum", "distinct"]);
const HEIGHT = 260;

export class Chart {
  /** readout: where the point under the pointer is told, or null */
  constructor(holder, readout, height = HEIGHT) {
    this.holder = holder;
    this.readout = readout;
    this.height = height;
    this.model = null;
    this.plot = null;
    new ResizeObserver(() => {
      if (holder.clientWidth) this.plot?.setSize({ width: holder.clientWidth, height });  // 0: on another screen
    }).observe(holder);
    for (const query of ["(prefers-color-scheme: dark)", "(prefers-contrast: more)"]) {
      globalThis.matchMedia(query).addEventListener("change", () => this.redraw());
    }
  }

  /** model: {points: [{start, end, value, finality} in ms], span: {start, end}, at, tz, unit, aggregate, basis, targets}, or
   *  null for nothing.  targets: values that a line is drawn at, or none */
  show(model) {
    const same = this.plot && model && this.model && ["tz", "unit", "aggregate", "basis"].every((k) => model[k] === this.model[k]);
    this.model = model;
    this.holder.dataset.points = String(model ? model.points.filter((p) => p.value !== null).length : 0);
    this.holder.dataset.corrected = String(model ? model.points.filter(corrected).length : 0);
    if (same) this.plot.setData(this.columns());
    else this.redraw();
    this.read(this.plot?.cursor.idx ?? null);
  }

  /** onPoint(point): a point with a value was pressed. */
  pressed(onPoint) {
    this.holder.classList.add("pressed");
    this.holder.addEventListener("click", () => {
      const point = this.model?.points[this.plot?.cursor.idx ?? -1];
      if (point && point.value !== null) onPoint(point);
    });
  }

  redraw() {
    this.plot?.destroy();
    this.plot = null;
    if (this.model) this.plot = new uPlot(this.options(), this.columns(), this.holder);
  }

  /** A point stands in the middle of its time, so that its bar covers that time and the pointer finds the nearest. */
  columns() {
    const { points } = this.model;
    return [points.map((p) => (p.start + p.end) / 2000), points.map((p) => (p.value === null ? null : Number(p.value)))];
  }

  options() {
    const { tz, unit, aggregate } = this.model;
    const paint = getComputedStyle(this.holder);
    const [ink, grid, accent, changed, card, goal] = ["--muted", "--grid", "--accent", "--corrected", "--card", "--achieved"].map((name) => paint.getPropertyValue(name).trim());
    const font = `12px ${paint.fontFamily}`;
    const bars = ADDITIVE.has(aggregate);
    const axis = { stroke: ink, font, grid: { stroke: grid, width: 1 }, ticks: { stroke: grid, width: 1, size: 4 } };
    return {
      width: this.holder.clientWidth, height: this.height,
      padding: [12, 22, 0, 0],  // the last tick's label stands half beyond the axis
      tzDate: (seconds) => uPlot.tzDate(new Date(seconds * 1000), tz),
      legend: { show: false },
      cursor: { y: false, drag: { x: false, y: false }, points: { size: 7 } },
      scales: {
        x: { range: () => [this.model.span.start / 1000, this.model.span.end / 1000] },
        y: { range: (_, low, high) => yRange(...this.around(low, high), bars) },
      },
      axes: [
        { ...axis, grid: { show: false }, size: 44, space: 64, values: (_, splits, __, ___, step) => splits.map((s, i) => tick(s * 1000, tz, step * 1000, i === 0)) },
        { ...axis, size: 58, ticks: { show: false }, values: (_, splits) => axisNumbers(splits, unit) },
      ],
      series: [{}, {
        stroke: accent, width: bars ? 0 : 1.75,
        fill: bars ? accent : undefined,
        paths: bars ? uPlot.paths.bars({ size: [0.75, 60] }) : undefined,
        points: bars ? { show: false } : { size: 4, filter: (plot, _, show) => (show ? null : alone(plot.data[1])) },
      }],
      hooks: {
        setCursor: [(plot) => this.read(plot.cursor.idx)],
        draw: [(plot) => this.mark(plot, ink), (plot) => this.aim(plot, goal), (plot) => this.ring(plot, changed, card)],
      },
    };
  }

  /** The dashed line at the question's moment. */
  mark(plot, ink) {
    const { at, span } = this.model;
    if (at === null || at <= span.start || at > span.end) return;
    const x = Math.round(plot.valToPos(at / 1000, "x", true)) - 0.5;
    const { ctx, bbox } = plot;
    ctx.save();
    ctx.strokeStyle = ink;
    ctx.setLineDash([4, 4]);
    ctx.beginPath();
    ctx.moveTo(x, bbox.top);
    ctx.lineTo(x, bbox.top + bbox.height);
    ctx.stroke();
    ctx.restore();
  }

  /** What the axis must hold: the values and the targets. */
  around(low, high) {
    const all = [low, high, ...this.model.targets ?? []].filter((one) => one !== null && one !== undefined);
    return all.length ? [Math.min(...all), Math.max(...all)] : [null, null];
  }

  /** A line at each target. */
  aim(plot, colour) {
    const { ctx, bbox } = plot;
    ctx.save();
    ctx.strokeStyle = colour;
    ctx.lineWidth = 2 * devicePixelRatio;
    ctx.setLineDash([6 * devicePixelRatio, 4 * devicePixelRatio]);
    for (const value of this.model.targets ?? []) {
      const y = Math.round(plot.valToPos(value, "y", true));
      ctx.beginPath();
      ctx.moveTo(bbox.left, y);
      ctx.lineTo(bbox.left + bbox.width, y);
      ctx.stroke();
    }
    ctx.restore();
  }

  /** A ring at each point that changed after it was settled. */
  ring(plot, colour, inside) {
    const { ctx } = plot;
    ctx.save();
    ctx.strokeStyle = colour;
    ctx.fillStyle = inside;
    ctx.lineWidth = 2 * devicePixelRatio;
    this.model.points.forEach((point, i) => {
      if (!corrected(point)) return;
      ctx.beginPath();
      ctx.arc(plot.valToPos(plot.data[0][i], "x", true), plot.valToPos(Number(point.value), "y", true), 4 * devicePixelRatio, 0, 2 * Math.PI);
      ctx.fill();
      ctx.stroke();
    });
    ctx.restore();
  }

  read(index) {
    if (this.readout === null) return;
    const point = this.model?.points[index ?? -1];
    if (!point) {
      this.readout.textContent = "";
      return;
    }
    const { tz, unit } = this.model;
    const words = [number(point.value, unit), point.value === null ? "" : unitWords(unit)].filter(Boolean).join(" ");
    const why = corrected(point) ? ` (${finalityWords(point.finality)})` : "";
    this.readout.textContent = `${stepInWords(point, tz)}: ${words}${why}`;
  }
}

function corrected(point) {
  return point.finality === "corrected" && point.value !== null;
}

/** "12 May 2013", or the two ends when it is not about a day. */
export function stepInWords({ start, end }, tz) {
  const hours = (end - start) / 3_600_000;
  if (hours > 22 && hours < 26) return dayInWords(start, tz);
  return hours < 22 ? inWords(start, tz) : `${dayInWords(start, tz)} to ${dayInWords(end - 1, tz)}`;
}

/** Points with a gap on both sides: a line would not show them. */
function alone(values) {
  const out = [];
  for (let i = 0; i < values.length; i += 1) {
    if (values[i] !== null && (values[i - 1] ?? null) === null && (values[i + 1] ?? null) === null) out.push(i);
  }
  return out;
}

function yRange(low, high, fromZero) {
  if (low === null || high === null || low === undefined) return [0, 1];
  if (fromZero) return [Math.min(0, low * 1.05), high > 0 ? high * 1.05 : low < 0 ? 0 : 1];
  const room = (high - low || Math.abs(high) || 1) * 0.08;
  return [low >= 0 ? Math.max(0, low - room) : low - room, high + room];
}
