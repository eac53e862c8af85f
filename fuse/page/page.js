// The page: reads its numbers, draws every figure, filters, and where it is served looks for news.

const POLL_MS = 3000;
const FILTERS = [["model", "Model"], ["ratio", "Ratio"], ["balance", "Balance"], ["seed", "Seed"]];

const page = {
  figures: new Map(),
  filters: { model: null, ratio: null, balance: null, seed: null, condition: 0 },
  // The values of a filter that are switched off: what is new in a page that is being served is shown.
  off: { model: new Set(), ratio: new Set(), balance: new Set(), seed: new Set() },
  width: 0,

  start() {
    this.theme();
    if (innerWidth < NARROW_PX) document.getElementById("filters").open = false;
    this.read();
    this.show();
    addEventListener("resize", () => this.resized());
    addEventListener("beforeprint", () => document.documentElement.classList.add("printing"));
    addEventListener("afterprint", () => document.documentElement.classList.remove("printing"));
    if (document.documentElement.dataset.live) this.watch();
  },

  read() {
    this.data = JSON.parse(document.getElementById("numbers").textContent);
    this.fillFilters();
  },

  // Draws everything anew.
  show() {
    for (const [name] of FILTERS) {
      const all = this.values(name);
      this.filters[name] = this.off[name].size ? new Set(all.filter((value) => !this.off[name].has(value))) : null;
    }
    const view = new View(this.data, this.filters);
    for (const host of document.querySelectorAll("figure[data-figure]")) {
      let figure = this.figures.get(host.id);
      if (!figure || figure.host !== host) {
        const before = figure;
        figure = new Figure(host, (state) => BUILDERS[host.dataset.figure](this.view, state));
        if (before) Object.assign(figure, { hidden: before.hidden, choice: before.choice });
        this.figures.set(host.id, figure);
      }
    }
    this.view = view;
    for (const figure of this.figures.values()) if (figure.host.isConnected) figure.update();
    this.filterTables();
    const shown = view.settings.length;
    const count = document.getElementById("count");
    if (count) count.textContent = `${shown} of ${this.data.settings.length} settings shown`;
    this.width = document.documentElement.clientWidth;
  },

  resized() {
    if (document.documentElement.clientWidth === this.width) return;
    this.width = document.documentElement.clientWidth;
    for (const figure of this.figures.values()) if (figure.host.isConnected) figure.render();
  },

  // ---- filters

  values(name) {
    const things = name === "seed" ? this.data.runs.map((run) => String(run.seed)) : [...this.data.settings, ...this.data.runs.filter((run) => run.setting === null)].map((s) => s[name] ?? WITHOUT_RATIO);
    const order = { ratio: (a, b) => (a === WITHOUT_RATIO) - (b === WITHOUT_RATIO) || audioShare(a) - audioShare(b), seed: (a, b) => a - b };
    const found = [...new Set(things)];
    return order[name] ? found.sort(order[name]) : found;
  },

  fillFilters() {
    const host = document.getElementById("filters");
    if (!host) return;
    const focused = document.activeElement?.id;
    const fields = host.querySelector(".fields");
    fields.replaceChildren();
    for (const [name, title] of FILTERS) {
      const values = this.values(name);
      if (values.length < 2) continue;
      const set = make(fields, "fieldset");
      make(set, "legend", {}, title);
      values.forEach((value, i) => {
        const label = make(set, "label");
        const box = make(label, "input", { type: "checkbox", id: `filter-${name}-${i}`, "data-filter": name, value, checked: !this.off[name].has(value) });
        make(label, "span", {}, value);
        box.addEventListener("change", () => {
          box.checked ? this.off[name].delete(value) : this.off[name].add(value);
          this.show();
        });
      });
    }
    if (this.data.conditions.length > 1) {
      const set = make(fields, "fieldset");
      make(set, "legend", {}, "Condition");
      const label = make(set, "label", { for: "filter-condition", class: "said" }, "Condition of the test clips");
      const select = make(set, "select", { id: "filter-condition" });
      label.after(select);
      this.data.conditions.forEach((name, i) => make(select, "option", { value: i, selected: i === this.filters.condition }, name));
      select.addEventListener("change", () => {
        this.filters.condition = Number(select.value);
        this.show();
      });
    }
    host.hidden = !fields.children.length;
    const reset = host.querySelector("#reset");
    reset.onclick = () => {
      for (const values of Object.values(this.off)) values.clear();
      this.filters.condition = 0;
      this.fillFilters();
      this.show();
    };
    if (focused) document.getElementById(focused)?.focus();
  },

  filterTables() {
    const kept = new Set(this.view.settings.map((s) => String(s.i)));
    for (const node of document.querySelectorAll("[data-settings], [data-any]")) {
      const mine = node.dataset.any ? node.dataset.any.split(" ").some((i) => kept.has(i)) : node.dataset.settings.split(" ").every((i) => kept.has(i));
      const seed = node.dataset.seed === undefined || this.view.keepsSeed(node.dataset.seed);
      const place = node.dataset.condition === undefined || Number(node.dataset.condition) === this.view.condition;
      node.hidden = !(mine && seed && place);
    }
    for (const node of document.querySelectorAll("[data-shown-condition]")) node.textContent = this.data.conditions[this.view.condition] ?? "";
  },

  // ---- theme

  theme() {
    const select = document.getElementById("theme");
    const root = document.documentElement;
    let kept = "auto";
    try {
      kept = localStorage.getItem("bmla-theme") || "auto";
    } catch {
      // a file that may keep nothing
    }
    const apply = (value) => {
      value === "auto" ? delete root.dataset.theme : (root.dataset.theme = value);
    };
    select.value = ["auto", "light", "dark"].includes(kept) ? kept : "auto";
    apply(select.value);
    select.addEventListener("change", () => {
      apply(select.value);
      try {
        localStorage.setItem("bmla-theme", select.value);
      } catch {
        // the choice holds until the page is closed
      }
    });
  },

  // ---- live

  watch() {
    const status = document.getElementById("live");
    let tag = document.documentElement.dataset.live;
    const look = async () => {
      try {
        const answer = await fetch(location.pathname, { headers: { "If-None-Match": `"${tag}"` }, cache: "no-store" });
        if (answer.status === 200) {
          this.replace(new DOMParser().parseFromString(await answer.text(), "text/html"));
          tag = document.documentElement.dataset.live;
        } else if (answer.status !== 304) {
          throw new Error(`status ${answer.status}`);
        }
        status.classList.remove("lost");
        status.dataset.state = "following";
      } catch {
        status.classList.add("lost");
        status.dataset.state = "lost";
        document.getElementById("live-lost").hidden = false;
        setTimeout(look, POLL_MS);
        return;
      }
      document.getElementById("live-lost").hidden = true;
      setTimeout(look, POLL_MS);
    };
    setTimeout(look, POLL_MS);
  },

  // Takes over what a newer page says; filters, legends, choices, open parts and the keyboard's place stay.
  replace(newer) {
    const open = [...document.querySelectorAll("main details[open]")].map((node) => pathOf(node));
    const focused = document.activeElement ? pathOf(document.activeElement) : null;
    document.documentElement.dataset.live = newer.documentElement.dataset.live;
    document.title = newer.title;
    document.getElementById("data").textContent = newer.getElementById("data").textContent;
    document.getElementById("numbers").textContent = newer.getElementById("numbers").textContent;
    document.querySelector("main").replaceWith(document.adoptNode(newer.querySelector("main")));
    this.read();
    this.show();
    for (const path of open) document.querySelector(path)?.setAttribute("open", "");
    if (focused) document.querySelector(focused)?.focus({ preventScroll: true });
  },
};

// Where a node stands, to find its like in another version of the page.
function pathOf(node) {
  if (node.id) return `#${CSS.escape(node.id)}`;
  if (!node.parentElement) return node.localName;
  const place = [...node.parentElement.children].indexOf(node) + 1;
  return `${pathOf(node.parentElement)} > ${node.localName}:nth-child(${place})`;
}

page.start();
