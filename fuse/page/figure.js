// A figure around a chart: its legend, what is under the pointer or the keyboard's place, its numbers as a table, and its files.

const NEAR_PX = 26;

class Figure {
  // host: the <figure> of the page; build: state -> specification; its caption and heading are there already.
  constructor(host, build) {
    this.host = host;
    this.build = build;
    this.hidden = null; // keys; null until the specification says which to begin with
    this.choice = null;
    this.at = -1;
    this.plot = host.querySelector(".plot");
    this.legend = make(null, "div", { class: "legend", role: "group", "aria-label": "Shown in this figure" });
    this.head = make(null, "div", { class: "choice" });
    this.plot.before(this.head, this.legend);
    this.area = make(this.plot, "div", { class: "area", tabindex: "0", role: "group", "aria-roledescription": "chart" });
    this.tip = make(this.plot, "div", { class: "tip", hidden: true });
    this.said = make(this.plot, "div", { class: "said", role: "status" });
    this.area.addEventListener("pointermove", (event) => this.point(event));
    this.area.addEventListener("pointerdown", (event) => this.point(event));
    this.area.addEventListener("pointerleave", () => this.leave());
    this.area.addEventListener("blur", () => this.leave());
    this.area.addEventListener("keydown", (event) => this.key(event));
    this.tools();
  }

  tools() {
    const tools = make(null, "div", { class: "tools" });
    for (const [kind, save] of [["PNG", () => this.savePng()], ["SVG", () => this.saveSvg()], ["CSV", () => this.saveCsv()]]) {
      const title = this.host.dataset.title;
      make(tools, "button", { type: "button", "aria-label": `Save the figure “${title}” as ${kind}` }, kind).addEventListener("click", save);
    }
    this.numbers = make(null, "details", { class: "numbers" });
    make(this.numbers, "summary", {}, "The numbers as a table");
    this.table = make(this.numbers, "div", { class: "wide", tabindex: "0", role: "region", "aria-label": `Numbers of the figure “${this.host.dataset.title}”` });
    this.numbers.addEventListener("toggle", () => this.fillTable());
    this.plot.after(tools, this.numbers);
  }

  update() {
    this.spec = this.build(this);
    if (this.hidden === null) this.hidden = new Set(this.spec.hide || []);
    this.fillChoice();
    this.fillLegend();
    this.render();
    this.fillTable();
  }

  render() {
    const width = Math.max(Math.floor(this.area.clientWidth), 240);
    this.leave();
    this.spots = [];
    this.area.replaceChildren();
    this.area.setAttribute("aria-label", `${this.host.dataset.title}. ${this.spec.summary} Arrow keys go from value to value.`);
    if (this.spec.empty) {
      make(this.area, "p", { class: "note" }, this.spec.empty);
      return;
    }
    const { svg, spots } = CHARTS[this.spec.kind](this.spec, width, this.hidden);
    this.area.append(svg);
    this.spots = spots;
    this.width = width;
  }

  fillChoice() {
    const { choices, choiceLabel } = this.spec;
    if (!choices || choices.length < 2) {
      this.head.replaceChildren();
      return;
    }
    const focused = this.head.contains(document.activeElement);
    this.head.replaceChildren();
    const label = make(this.head, "label", {}, choiceLabel + " ");
    const select = make(label, "select");
    for (const [value, text] of choices) make(select, "option", { value, selected: String(value) === String(this.spec.chosen) }, text);
    select.addEventListener("change", () => {
      this.choice = select.value;
      this.update();
    });
    if (focused) select.focus();
  }

  fillLegend() {
    const keys = this.spec.keys || [];
    const focused = this.legend.contains(document.activeElement) ? document.activeElement.dataset.key : null;
    this.legend.replaceChildren();
    this.legend.hidden = keys.length < 2;
    if (keys.length < 2) return;
    for (const { key, label, n, dashed } of keys) {
      const button = make(this.legend, "button", { type: "button", "aria-pressed": String(!this.hidden.has(key)), "data-key": key });
      const swatch = draw(button, "svg", { width: 22, height: 12, "aria-hidden": "true" });
      draw(swatch, "line", { x1: 1, x2: 21, y1: 6, y2: 6, class: `${dashed ? `s c${n % COLOURS} dashed` : lineLook(n)}` });
      if (!dashed) marker(swatch, 11, 6, n, 3.5);
      make(button, "span", {}, label);
      button.addEventListener("click", () => {
        this.hidden.has(key) ? this.hidden.delete(key) : this.hidden.add(key);
        this.update();
      });
      if (key === focused) button.focus();
    }
    if (keys.length > 3) {
      for (const [text, hidden] of [["all", []], ["none", keys.map((k) => k.key)]]) {
        make(this.legend, "button", { type: "button", class: "every", "data-key": ` ${text}` }, text).addEventListener("click", () => {
          this.hidden = new Set(hidden);
          this.update();
        });
      }
    }
  }

  // ---- what is looked at

  point(event) {
    const svg = this.area.querySelector("svg");
    if (!svg || !this.spots.length) return;
    const box = svg.getBoundingClientRect();
    const ratio = this.width ? svg.viewBox.baseVal.width / box.width : 1;
    const [x, y] = [(event.clientX - box.left) * ratio, (event.clientY - box.top) * ratio];
    let best = -1;
    let least = NEAR_PX ** 2;
    this.spots.forEach((spot, i) => {
      const distance = (spot.x - x) ** 2 + (spot.y - y) ** 2;
      if (distance < least) [least, best] = [distance, i];
    });
    best < 0 ? this.leave() : this.show(best, false);
  }

  key(event) {
    const count = this.spots.length;
    const moves = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 };
    if (event.key === "Escape") this.leave();
    else if (count && event.key in moves) this.show((Math.max(this.at, moves[event.key] < 0 ? 0 : -1) + moves[event.key] + count) % count, true);
    else if (count && event.key === "Home") this.show(0, true);
    else if (count && event.key === "End") this.show(count - 1, true);
    else return;
    event.preventDefault();
  }

  show(i, aloud) {
    const svg = this.area.querySelector("svg");
    const spot = this.spots[i];
    this.at = i;
    let ring = svg.querySelector(".here");
    ring = ring || draw(svg, "circle", { r: 8, class: "here" });
    finish(null, ring, { cx: round(spot.x), cy: round(spot.y) });
    this.tip.textContent = spot.text;
    this.tip.hidden = false;
    const ratio = svg.getBoundingClientRect().width / svg.viewBox.baseVal.width;
    const room = this.area.clientWidth - this.tip.offsetWidth;
    this.tip.style.left = `${Math.max(0, Math.min(spot.x * ratio + 12, room))}px`;
    this.tip.style.top = `${Math.max(0, spot.y * ratio - this.tip.offsetHeight - 10)}px`;
    if (aloud) this.said.textContent = spot.text;
  }

  leave() {
    this.at = -1;
    this.tip.hidden = true;
    this.area.querySelector(".here")?.remove();
  }

  // ---- its numbers

  fillTable() {
    this.table.replaceChildren();
    if (!this.numbers.open) return;
    const table = make(this.table, "table", { class: "text" });
    const head = make(make(table, "thead"), "tr");
    for (const name of this.spec.table.heads) make(head, "th", { scope: "col" }, name);
    const body = make(table, "tbody");
    for (const line of this.spec.table.lines) {
      const row = make(body, "tr");
      line.forEach((value, i) => make(row, i ? "td" : "th", i ? {} : { scope: "row" }, typeof value === "number" || value === null ? figure(value) : value));
    }
  }

  // ---- its files

  // A copy that needs no style sheet, in the light theme whatever the page's, with its legend below.
  standalone() {
    const root = document.documentElement;
    const before = root.style.colorScheme;
    root.style.colorScheme = "light";
    try {
      const { svg } = CHARTS[this.spec.kind](this.spec, Math.max(this.area.clientWidth, 720), this.hidden);
      this.writeLegend(svg);
      const stage = make(document.body, "div", { class: "stage" });
      stage.append(svg);
      for (const node of svg.querySelectorAll("*")) {
        const look = getComputedStyle(node);
        for (const name of ["fill", "fill-opacity", "stroke", "stroke-width", "stroke-dasharray", "opacity", "font-size", "font-weight", "text-anchor"]) {
          if (look.getPropertyValue(name)) node.setAttribute(name, look.getPropertyValue(name));
        }
        node.removeAttribute("class");
      }
      stage.remove();
      svg.setAttribute("font-family", "system-ui, -apple-system, 'Segoe UI', 'DejaVu Sans', sans-serif");
      return svg;
    } finally {
      root.style.colorScheme = before;
    }
  }

  writeLegend(svg) {
    const box = svg.viewBox.baseVal;
    const keys = (this.spec.keys || []).filter((k) => !this.hidden.has(k.key));
    let y = box.height + 14;
    let x = 10;
    if (keys.length > 1) {
      for (const { label, n, dashed } of keys) {
        const width = 42 + textWidth(label, 12);
        if (x > 10 && x + width > box.width) [x, y] = [10, y + 18];
        draw(svg, "line", { x1: x - 4, x2: x + 16, y1: y - 4, y2: y - 4, class: dashed ? `s c${n % COLOURS} dashed` : lineLook(n) });
        if (!dashed) marker(svg, x + 6, y - 4, n, 3.5);
        draw(svg, "text", { x: x + 21, y, class: "name" }, label);
        x += width;
      }
      y += 12;
    }
    const size = [box.width, Math.ceil(Math.max(y, box.height))];
    svg.prepend(draw(null, "rect", { width: size[0], height: size[1], class: "paper" }));
    finish(null, svg, { width: size[0], height: size[1], viewBox: `0 0 ${size[0]} ${size[1]}` });
  }

  saveSvg() {
    if (this.spec.empty) return;
    this.save("svg", new Blob([new XMLSerializer().serializeToString(this.standalone())], { type: "image/svg+xml" }));
  }

  savePng() {
    if (this.spec.empty) return;
    const svg = this.standalone();
    const [width, height] = [svg.viewBox.baseVal.width, svg.viewBox.baseVal.height];
    const image = new Image();
    image.onload = () => {
      const canvas = make(null, "canvas", { width: 2 * width, height: 2 * height });
      canvas.getContext("2d").drawImage(image, 0, 0, 2 * width, 2 * height);
      canvas.toBlob((blob) => this.save("png", blob), "image/png");
    };
    image.src = "data:image/svg+xml;charset=utf-8," + encodeURIComponent(new XMLSerializer().serializeToString(svg));
  }

  saveCsv() {
    const lines = [this.spec.table.heads, ...this.spec.table.lines];
    this.save("csv", new Blob([lines.map((line) => line.map(csvCell).join(",")).join("\r\n") + "\r\n"], { type: "text/csv" }));
  }

  save(kind, blob) {
    const link = make(null, "a", { href: URL.createObjectURL(blob), download: `${this.host.id}.${kind}` });
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10000);
  }
}

// A text that a spreadsheet would take for a formula is kept one by a quote before it.
function csvCell(value) {
  if (typeof value === "number") return String(value);
  const text = value === null || value === undefined ? "" : String(value);
  const safe = /^[=+\-@\t\r]/.test(text) && Number.isNaN(Number(text)) ? `'${text}` : text;
  return /[",\r\n]/.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe;
}
