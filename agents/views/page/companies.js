/** The list of companies: search, arrow keys, one selected.  "" is the whole organisation and comes first. */

const WHOLE = { metakey: "", name: "Whole organisation", keys: [] };

export class Companies {
  /** onSelect(metakey) is called when a person chooses; onSearch(text) when the list here is not all there is. */
  constructor({ list, search, note, name, panel }, { onSelect, onSearch }) {
    Object.assign(this, { list, search, note, name, panel, onSelect, onSearch });
    this.all = [];
    this.more = false;
    this.selected = "";
    this.active = 0;
    this.draw();
    search.addEventListener("input", () => {
      this.draw();
      if (this.more) this.onSearch(this.search.value.trim());
    });
    search.addEventListener("keydown", (event) => this.searchKey(event));
    list.addEventListener("keydown", (event) => this.listKey(event));
    // Pressed with a pointer the list must not scroll: the row would move away under it, and the click would miss.
    list.addEventListener("pointerdown", () => { this.pointed = true; });
    list.addEventListener("focus", () => {
      this.activate(Math.max(0, this.shown.findIndex((c) => this.is(c))), !this.pointed);
      this.pointed = false;
    });
    list.addEventListener("click", (event) => {
      this.pointed = false;
      const option = event.target.closest("[role=option]");
      if (option) this.choose(this.shown[Number(option.dataset.index)]);
    });
    // On a phone the list is folded away under the chosen name; on a wide screen it always lies open.
    const wide = globalThis.matchMedia("(min-width: 56rem)");
    const fold = () => { panel.open = wide.matches; };
    wide.addEventListener("change", fold);
    fold();
  }

  /** `more`: the worker has companies beyond these. */
  fill(companies, more) {
    if (more === this.more && JSON.stringify(companies) === JSON.stringify(this.all)) return;
    this.all = companies;
    this.more = more;
    this.draw();
  }

  select(company) {
    if (company === this.selected) return;
    this.selected = company;
    this.draw();
  }

  /** The chosen company's own name, or the parameter as given when it is not in the list. */
  get title() {
    return this.titleOf(this.selected);
  }

  /** The name of a company as the address calls it. */
  titleOf(company) {
    if (!company) return WHOLE.name;
    const found = this.all.find((one) => one.metakey === company || one.keys.includes(company));
    return found ? found.name || found.keys[0] || found.metakey : company;
  }

  /** The company a text names exactly (MetaKey, alternate key, name), or undefined. */
  named(text) {
    return this.all.find((c) => c.metakey === text || c.name === text || c.keys.includes(text));
  }

  is(company) {
    if (!this.selected) return company.metakey === "";
    return company.metakey === this.selected || company.keys.includes(this.selected);
  }

  draw() {
    const wanted = this.search.value.trim().toLowerCase();
    const fits = (c) => [c.name, c.metakey, ...c.keys].some((text) => text?.toLowerCase().includes(wanted));
    this.shown = wanted ? this.all.filter(fits) : [WHOLE, ...this.all];
    this.list.replaceChildren(...this.shown.map((company, index) => this.option(company, index)));
    this.name.textContent = this.title;
    this.note.hidden = this.shown.length > 0 && !this.more;
    this.note.textContent = this.shown.length ? "There are more companies: search to find them."
      : wanted ? "No company has this name or key." : "";
    this.activate(Math.min(this.active, this.shown.length - 1), false);
  }

  option(company, index) {
    const item = document.createElement("li");
    item.setAttribute("role", "option");
    item.id = `company-${index}`;
    item.dataset.index = String(index);
    item.dataset.metakey = company.metakey;
    item.setAttribute("aria-selected", String(this.is(company)));
    const name = document.createElement("span");
    name.className = "name";
    name.textContent = company.name || company.keys[0] || company.metakey;
    const keys = document.createElement("span");
    keys.className = "keys";
    // The name is often itself a key: shown once, and the codes beside it.
    keys.textContent = company.keys.map((key) => key.slice(key.indexOf(":") + 1)).filter((key) => key !== company.name).join(", ");
    item.append(name, keys);
    return item;
  }

  activate(index, scroll = true) {
    this.active = Math.max(0, index);
    for (const item of this.list.children) item.classList.toggle("active", Number(item.dataset.index) === this.active);
    const item = this.list.children[this.active];
    if (!item) return this.list.removeAttribute("aria-activedescendant");
    this.list.setAttribute("aria-activedescendant", item.id);
    if (scroll) item.scrollIntoView({ block: "nearest" });
  }

  choose(company) {
    if (!company) return;
    this.selected = company.metakey;
    this.search.value = "";
    this.draw();
    this.activate(this.shown.findIndex((c) => this.is(c)));
    this.onSelect(company.metakey);
  }

  listKey(event) {
    const last = this.shown.length - 1;
    const to = { ArrowDown: this.active + 1, ArrowUp: this.active - 1, Home: 0, End: last, PageDown: this.active + 8, PageUp: this.active - 8 }[event.key];
    if (to !== undefined) this.activate(Math.min(Math.max(to, 0), last));
    else if (event.key === "Enter" || event.key === " ") this.choose(this.shown[this.active]);
    else return;
    event.preventDefault();
  }

  searchKey(event) {
    if (event.key === "Enter") this.choose(this.shown[0]);
    else if (event.key === "ArrowDown") this.list.focus();
    else if (event.key === "Escape" && this.search.value) {
      this.search.value = "";
      this.draw();
    } else return;
    event.preventDefault();
  }
}
