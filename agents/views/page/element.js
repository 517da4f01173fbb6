/** Elements: what the screens are built of.  Text becomes text; nothing here reads markup. */

/**
 * make("p", {id: "why", class: "muted", hidden: true, text: "…", onclick: f}, child, "text", …)
 *
 * A function is a listener, `true` an attribute without a value, false, null and undefined none; `data` is an object
 * for the dataset.  Children that are null are left out, an array stands for its elements.
 */
export function make(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (value === false || value === null || value === undefined) continue;
    if (key === "text") made.textContent = value;
    else if (key === "data") Object.assign(made.dataset, Object.fromEntries(Object.entries(value).filter(([, one]) => one !== null && one !== undefined)));
    else if (typeof value === "function") made.addEventListener(key.slice(2), value);
    else made.setAttribute(key, value === true ? "" : value);
  }
  made.append(...children.flat(Infinity).filter((one) => one !== null && one !== undefined));
  return made;
}

/** Fills a select; a value that is not among the options (from the address) is added, so that it is seen. */
export function fill(select, pairs, value, name = (text) => text) {
  const all = value && !pairs.some(([key]) => key === value) ? [...pairs, [value, name(value)]] : pairs;
  const key = JSON.stringify(all);
  if (select.dataset.filled !== key) {
    select.dataset.filled = key;
    select.replaceChildren(...all.map(([v, text]) => new Option(text, v)));
  }
  select.value = value;
}

/** Puts new children into a place that is drawn anew while somebody may stand on it: who stands on an element with a
 *  `data-key` stands on that of the same key afterwards. */
export function redraw(place, ...children) {
  const held = place.contains(document.activeElement) ? document.activeElement.closest("[data-key]")?.dataset.key : undefined;
  place.replaceChildren(...children.flat(Infinity).filter((one) => one !== null && one !== undefined));
  if (held === undefined) return;
  const found = [...place.querySelectorAll("[data-key]")].find((one) => one.dataset.key === held);
  (found?.matches("a, button") ? found : found?.querySelector("a, button"))?.focus({ preventScroll: true });
}
