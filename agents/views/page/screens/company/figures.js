/** A company's numbers as small charts, each with its targets; kept from one drawing to the next, so nothing flickers. */

import { Chart } from "../../chart.js";
import { make } from "../../element.js";
import { pointsOf } from "../../figures.js";
import { nothing } from "../../pieces.js";
import * as words from "../../words.js";

const HEIGHT = 150;
const OPS = { ">=": "≥", "<=": "≤", "==": "=", "!=": "≠" };

export class Figures {
  constructor(holder) {
    this.holder = holder;
    this.kept = new Map();
    holder.append(make("div", { class: "waiting", "aria-hidden": "true" }));
  }

  clear(words) {
    this.holder.replaceChildren(nothing(words));
    this.kept.clear();
  }

  draw(now, { wanted, series, values }, world, href) {
    if (!wanted.length) {
      this.clear("There are no metrics yet.");
      return;
    }
    // The key of a figure without its moment: a moving slider changes what is drawn, not where.
    const names = wanted.map((one, i) => `${one.metric} ${one.window} ${wanted.slice(0, i).filter((other) => other.metric === one.metric && other.window === one.window).length}`);
    for (const name of this.kept.keys()) if (!names.includes(name)) this.kept.delete(name);
    const places = names.map((name) => this.kept.get(name) ?? this.kept.set(name, new Figure()).get(name));
    const boxes = places.map((one) => one.box);
    if (boxes.some((box, i) => this.holder.children[i] !== box) || this.holder.children.length !== boxes.length) this.holder.replaceChildren(...boxes);
    places.forEach((one, i) => one.draw(now, wanted[i], series[i], values[i], world, href));
  }
}

class Figure {
  constructor() {
    this.link = make("a", {});
    this.value = make("strong", {});
    this.unit = make("span", { class: "muted" });
    this.aims = make("ul", { class: "aims" });
    this.plot = make("div", { class: "chart", role: "img" });
    this.note = make("p", { class: "muted", hidden: true });
    this.box = make("article", { class: "figure" }, make("h4", {}, this.link), make("p", {}, this.value, " ", this.unit), this.aims, this.plot, this.note);
    this.chart = new Chart(this.plot, null, HEIGHT);
  }

  draw(now, wanted, { said, why }, answered, world, href) {
    const metric = world.metrics.find((one) => one.name === wanted.metric);
    const unit = metric?.unit ?? "";
    const over = wanted.targets.length ? words.windowWords(wanted.window).toLowerCase() : "all time";
    const points = pointsOf(said, wanted.running);
    const targets = wanted.window === "all" && !wanted.running ? [] : wanted.targets.map((one) => one.target);
    const last = points.at(-1)?.value ?? null;
    // Before a milestone begins its action has no value; the last window has the one that it will compare.
    const value = wanted.value === undefined ? answered.said?.value ?? null : wanted.value ?? last;
    this.link.textContent = words.sentence(wanted.metric);
    this.link.href = href({ screen: "metric", metric: wanted.metric, window: wanted.targets.length ? wanted.window : "all" });
    Object.assign(this.box.dataset, {
      metric: wanted.metric, window: wanted.window, value: value === null ? "" : String(value), last: last === null ? "" : String(last),
      targets: wanted.targets.map((one) => `${one.op}${one.target}`).join(" "),
    });
    this.value.textContent = words.number(value, unit);
    this.unit.textContent = `${words.unitWords(unit)} ${over}`.trim();
    this.aims.replaceChildren(...wanted.targets.map((one) => make("li", { data: { holds: String(one.holds) } },
      make("span", { class: "mark", "aria-hidden": "true", text: one.holds ? "✓" : "○" }),
      ` ${words.sentence(one.milestone)}: ${OPS[one.op] ?? one.op} ${words.number(one.target, unit)}, ${one.holds ? "met" : "not met"}`)));
    const empty = points.every((one) => one.value === null);
    const none = why ? why.title : wanted.span === null ? "There is no data before this moment." : empty ? "There are no values in this time." : "";
    this.aims.hidden = !wanted.targets.length;
    this.note.textContent = none;
    this.note.hidden = !none;
    this.plot.hidden = Boolean(none);
    this.plot.setAttribute("aria-label", `${words.sentence(wanted.metric)}, ${over}, over time`);
    this.chart.show(none ? null : { points, span: wanted.span, at: now.at, tz: now.tz, unit, aggregate: wanted.running ? null : metric?.aggregate ?? null, basis: now.basis, targets });
  }
}
