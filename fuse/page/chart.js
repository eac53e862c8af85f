// Charts as SVG: lines in panels, rows with intervals, and a matrix. Each takes a specification and a width in pixels and gives back
// its picture and its spots: places with a text, for the pointer and the keyboard. Colours are classes, so that the page's theme rules.
// Own code, since plotly.js as its Python package ships it (7.1) takes 4.8 of the 5 MB that a page may have, without keyboard or screen reader.

const SVG = "http://www.w3.org/2000/svg";
const COLOURS = 8;
const NARROW_PX = 560;
const MOST_MARKERS = 30; // of a line: more would hide it
const NAMED_CLASSES = 60;
const LARGEST_CELL_PX = 64;
const LARGEST_MATRIX_PX = 660;

function make(parent, name, attributes = {}, text) {
  const node = document.createElement(name);
  return finish(parent, node, attributes, text);
}

function draw(parent, name, attributes = {}, text) {
  return finish(parent, document.createElementNS(SVG, name), attributes, text);
}

function finish(parent, node, attributes, text) {
  for (const [key, value] of Object.entries(attributes)) {
    if (value !== null && value !== undefined && value !== false) node.setAttribute(key, value === true ? "" : value);
  }
  if (text !== undefined) node.textContent = text;
  if (parent) parent.append(node);
  return node;
}

const percent = (value) => (100 * value).toFixed(1) + " %";

function figure(value) {
  if (value === null || value === undefined) return "–";
  if (Number.isInteger(value)) return String(value);
  return Math.abs(value) >= 0.001 && Math.abs(value) < 1e5 ? String(Number(value.toPrecision(4))) : value.toExponential(2);
}

// ---- scales

function niceTicks(low, high, count) {
  const raw = (high - low) / Math.max(count, 1);
  const power = 10 ** Math.floor(Math.log10(raw));
  const step = power * [1, 2, 5, 10].find((factor) => factor * power >= raw * (1 - 1e-9));
  const ticks = [];
  for (let i = Math.ceil(low / step - 1e-9); i * step <= high + step * 1e-9; i++) ticks.push(Number((i * step).toPrecision(12)));
  return ticks;
}

function logTicks(low, high) {
  const ticks = [];
  for (let power = Math.floor(Math.log10(low)); power <= Math.ceil(Math.log10(high)); power++) {
    for (const factor of [1, 2, 5]) ticks.push(factor * 10 ** power);
  }
  const inside = ticks.filter((t) => t >= low * 0.999 && t <= high * 1.001);
  const decades = inside.filter((t) => Math.abs(Math.log10(t) - Math.round(Math.log10(t))) < 1e-9);
  if (inside.length < 3) return niceTicks(low, high, 4);
  return inside.length > 8 && decades.length > 1 ? decades : inside;
}

// The range of values as [low, high], with a little room; one that is fixed is kept.
function extent(values, axis) {
  let low = Math.min(...values);
  let high = Math.max(...values);
  if (!Number.isFinite(low)) [low, high] = [0, 1];
  if (axis.log) return low === high ? [low / 2, high * 2] : [low / 1.1, high * 1.1];
  const room = (high - low) * 0.06 || Math.abs(high) * 0.05 || 0.5;
  low -= room;
  high += room;
  if (axis.least !== undefined) low = Math.max(low, axis.least);
  if (axis.most !== undefined) high = Math.min(high, axis.most);
  if (axis.low !== undefined) low = axis.low;
  if (axis.high !== undefined) high = axis.high;
  return [low, high];
}

function scale([low, high], [from, to], log) {
  const of = log ? Math.log : (value) => value;
  const factor = (to - from) / (of(high) - of(low) || 1);
  return (value) => from + (of(value) - of(low)) * factor;
}

const tickText = (axis) => (value) => (axis.percent ? String(Number((100 * value).toFixed(1))) : figure(value));

// ---- parts

let ruler = null;

function textWidth(text, size, bold) {
  ruler = ruler || document.createElement("canvas").getContext("2d");
  ruler.font = `${bold ? "600 " : ""}${size}px ${getComputedStyle(document.body).fontFamily}`;
  return ruler.measureText(text).width;
}

function fitted(text, width, size, bold) {
  if (textWidth(text, size, bold) <= width) return text;
  let letters = Array.from(text);
  while (letters.length > 1 && textWidth(letters.join("") + "…", size, bold) > width) letters = letters.slice(0, -1);
  return letters.join("") + "…";
}

const round = (value) => Math.round(value * 10) / 10;

// The look of line n: after all colours, the same ones with dashes.
const lineLook = (n) => `s c${n % COLOURS} d${Math.floor(n / COLOURS) % 4}`;

function marker(parent, x, y, n, size, extra = "") {
  const kind = Math.floor(n / COLOURS) % 4;
  const name = `f c${n % COLOURS} ${extra}`;
  const r = size;
  if (kind === 0) return draw(parent, "circle", { cx: round(x), cy: round(y), r, class: name });
  const shapes = {
    1: [[-r, -r], [r, -r], [r, r], [-r, r]],
    2: [[0, -1.3 * r], [1.2 * r, r], [-1.2 * r, r]],
    3: [[0, -1.4 * r], [1.4 * r, 0], [0, 1.4 * r], [-1.4 * r, 0]],
  };
  const points = shapes[kind].map(([dx, dy]) => `${round(x + dx)},${round(y + dy)}`).join(" ");
  return draw(parent, "polygon", { points, class: name });
}

function picture(width, height) {
  return draw(null, "svg", { xmlns: SVG, width, height, viewBox: `0 0 ${width} ${height}`, "aria-hidden": "true", focusable: "false" });
}

// ---- lines

function lineChart(spec, width, hidden) {
  const columns = Math.max(1, Math.min(spec.panels.length, 3, Math.floor(width / 270)));
  const panelWidth = Math.floor(width / columns);
  const panelHeight = spec.height || 250;
  const lines = Math.ceil(spec.panels.length / columns);
  const svg = picture(width, lines * panelHeight);
  const spots = [];
  const shown = spec.panels.map((panel) => panel.series.filter((s) => !hidden.has(s.key)));
  const all = spec.sharedY ? heights(shown.flat(), spec.panels.flatMap((p) => p.rules || []), hidden) : null;
  spec.panels.forEach((panel, i) => {
    const place = { x: (i % columns) * panelWidth, y: Math.floor(i / columns) * panelHeight };
    const group = draw(svg, "g", { transform: `translate(${place.x},${place.y})` });
    const values = all || heights(shown[i], panel.rules || [], hidden);
    onePanel(group, panel, shown[i], values, panelWidth, panelHeight, hidden, (x, y, text) =>
      spots.push({ x: x + place.x, y: y + place.y, text }));
  });
  return { svg, spots };
}

function heights(series, rules, hidden) {
  const values = series.flatMap((s) => s.points.flatMap((p) => [p.y, p.low, p.high]));
  return [...values, ...rules.filter((r) => !hidden.has(r.key)).map((r) => r.y)].filter((v) => v !== null && v !== undefined);
}

function onePanel(group, panel, series, values, width, height, hidden, spot) {
  const box = { left: 48, right: width - 12, top: 28, bottom: height - 44 };
  const range = extent(values, panel.y);
  const y = scale(range, [box.bottom, box.top], panel.y.log);
  const ticks = panel.y.log ? logTicks(...range) : niceTicks(...range, 5);
  if (panel.title) draw(group, "text", { x: box.left, y: 14, class: "title" }, fitted(panel.title, width - box.left - 8, 12, true));
  for (const tick of ticks) {
    draw(group, "line", { x1: box.left, x2: box.right, y1: round(y(tick)), y2: round(y(tick)), class: "grid" });
    draw(group, "text", { x: box.left - 6, y: round(y(tick) + 4), class: "tick end" }, tickText(panel.y)(tick));
  }
  draw(group, "text", { transform: `translate(12,${(box.top + box.bottom) / 2}) rotate(-90)`, class: "label middle" }, panel.y.label);
  const x = xAxis(group, panel, series, box);
  for (const rule of (panel.rules || []).filter((r) => !hidden.has(r.key))) {
    draw(group, "line", { x1: box.left, x2: box.right, y1: round(y(rule.y)), y2: round(y(rule.y)), class: `s c${rule.n % COLOURS} dashed` });
    spot(box.right - 4, y(rule.y), rule.text);
  }
  const keys = [...new Set(series.filter((s) => !s.thin).map((s) => s.key))];
  const band = panel.x.names ? Math.min(7, (0.5 * (box.right - box.left)) / panel.x.names.length / Math.max(keys.length, 1)) : 0;
  for (const s of [...series].sort((a, b) => Number(b.thin || 0) - Number(a.thin || 0))) {
    const shift = panel.x.names && !s.thin ? (keys.indexOf(s.key) - (keys.length - 1) / 2) * band : 0;
    oneLine(group, s, (p) => x(p.x) + shift, y, spot);
  }
}

function xAxis(group, panel, series, box) {
  let x;
  if (panel.x.names) {
    const names = panel.x.names;
    x = scale([-0.5, names.length - 0.5], [box.left, box.right]);
    names.forEach((name, i) => draw(group, "text", { x: round(x(i)), y: box.bottom + 16, class: "tick middle" }, name));
  } else {
    const values = series.flatMap((s) => s.points.map((p) => p.x));
    const [low, high] = values.length ? [Math.min(...values), Math.max(...values)] : [1, 2];
    x = scale(low === high ? [low - 1, high + 1] : [low, high], [box.left + 6, box.right - 6]);
    const whole = niceTicks(low, high === low ? low + 1 : high, Math.floor((box.right - box.left) / 50)).filter(Number.isInteger);
    for (const tick of whole) draw(group, "text", { x: round(x(tick)), y: box.bottom + 16, class: "tick middle" }, String(tick));
  }
  draw(group, "line", { x1: box.left, x2: box.right, y1: box.bottom, y2: box.bottom, class: "axis" });
  draw(group, "text", { x: (box.left + box.right) / 2, y: box.bottom + 34, class: "label middle" }, panel.x.label);
  return x;
}

function oneLine(group, s, x, y, spot) {
  const colour = `c${s.n % COLOURS}`;
  let path = "";
  let pen = "M";
  for (const p of s.points) {
    if (p.y === null || p.y === undefined) {
      pen = "M";
      continue;
    }
    path += `${pen}${round(x(p))} ${round(y(p.y))}`;
    pen = "L";
  }
  draw(group, "path", { d: path, class: `${lineLook(s.n)}${s.thin ? " thin" : ""}${s.dashed ? " dashed" : ""}` });
  const known = s.points.filter((p) => p.y !== null && p.y !== undefined);
  for (const p of known) {
    if (p.low !== undefined && p.low !== null) {
      draw(group, "line", { x1: round(x(p)), x2: round(x(p)), y1: round(y(p.low)), y2: round(y(p.high)), class: `s ${colour} bar` });
    }
    for (const dot of p.dots || []) draw(group, "circle", { cx: round(x(p) + 4), cy: round(y(dot)), r: 1.8, class: `f ${colour} dot` });
    if (!s.thin && known.length <= MOST_MARKERS && !s.bare) marker(group, x(p), y(p.y), s.n, 3);
    if (!s.thin && p.text) spot(x(p), y(p.y), p.text);
  }
  if (known.length === 1 && (s.thin || s.bare)) marker(group, x(known[0]), y(known[0].y), s.n, 2.5);
  for (const flag of s.flags || []) {
    const at = { x: x(flag), y: y(flag.y) };
    draw(group, "line", { x1: round(at.x), x2: round(at.x), y1: round(at.y - 9), y2: round(at.y + 9), class: `s ${colour} flag` });
    draw(group, "circle", { cx: round(at.x), cy: round(at.y), r: 4.5, class: `s ${colour} ring` });
    spot(at.x, at.y, flag.text);
  }
}

// ---- rows

function rowChart(spec, width, hidden) {
  const narrow = width < NARROW_PX;
  const names = spec.rows.map((row) => row.label);
  const left = narrow ? 8 : Math.min(Math.max(...names.map((name) => textWidth(name, 12, true)), 30) + 14, 0.42 * width);
  const items = spec.rows.map((row) => row.items.filter((item) => !hidden.has(item.key)));
  const heights = items.map((found) => (narrow ? 17 : 0) + Math.max(spec.slim ? 15 : 22, 13 * found.length + 4));
  const top = 8;
  const bottom = top + heights.reduce((a, b) => a + b, 0);
  const svg = picture(width, bottom + 44);
  const values = items.flat().flatMap((i) => [i.value, i.low, i.high, i.from, ...(i.dots || [])]).filter((v) => v !== null && v !== undefined);
  if (spec.x.rule !== undefined) values.push(spec.x.rule);
  const range = extent(values, spec.x);
  const x = scale(range, [left, width - 14], spec.x.log);
  for (const tick of spec.x.log ? logTicks(...range) : niceTicks(...range, Math.floor((width - left) / 70))) {
    draw(svg, "line", { x1: round(x(tick)), x2: round(x(tick)), y1: top, y2: bottom, class: "grid" });
    draw(svg, "text", { x: round(x(tick)), y: bottom + 16, class: "tick middle" }, tickText(spec.x)(tick));
  }
  if (spec.x.rule !== undefined) draw(svg, "line", { x1: round(x(spec.x.rule)), x2: round(x(spec.x.rule)), y1: top, y2: bottom, class: "axis strong" });
  draw(svg, "line", { x1: left, x2: width - 14, y1: bottom, y2: bottom, class: "axis" });
  draw(svg, "text", { x: (left + width - 14) / 2, y: bottom + 34, class: "label middle" }, fitted(spec.x.label, width - 24, 12));
  const spots = [];
  let y = top;
  spec.rows.forEach((row, i) => {
    const name = { class: row.strong ? "name strong" : "name" };
    if (narrow) draw(svg, "text", { ...name, x: left, y: y + 13 }, fitted(row.label, width - 20, 12, row.strong));
    const from = y + (narrow ? 17 : 0);
    const middle = (from + y + heights[i]) / 2;
    if (!narrow) draw(svg, "text", { ...name, x: left - 8, y: round(middle + 4), class: name.class + " end" }, fitted(row.label, left - 12, 12, row.strong));
    items[i].forEach((item, k) => {
      const at = middle + 13 * (k - (items[i].length - 1) / 2);
      oneItem(svg, item, x, at);
      spots.push({ x: x(item.value), y: at, text: item.text });
    });
    y += heights[i];
  });
  return { svg, spots };
}

function oneItem(svg, item, x, y) {
  const colour = `c${item.n % COLOURS}`;
  const at = round(y);
  if (item.from !== undefined) {
    const [a, b] = [x(item.from), x(item.value)].sort((p, q) => p - q);
    draw(svg, "rect", { x: round(a), y: at - 4, width: Math.max(round(b - a), 1), height: 8, class: `f ${colour}` });
    return;
  }
  if (item.low !== undefined && item.low !== null) {
    draw(svg, "line", { x1: round(x(item.low)), x2: round(x(item.high)), y1: at, y2: at, class: `s ${colour} bar` });
  }
  for (const dot of item.dots || []) draw(svg, "circle", { cx: round(x(dot)), cy: at + 5, r: 2, class: `f ${colour} dot` });
  marker(svg, x(item.value), y, item.n, 4);
}

// ---- matrix

function matrixChart(spec, width) {
  const n = spec.names.length;
  const longest = Math.max(...spec.names.map((name) => textWidth(name, 11)));
  const named = n <= NAMED_CLASSES;
  const room = Math.min(longest + 12, 110);
  let margin = named ? room : 22;
  const largest = Math.min(LARGEST_MATRIX_PX, n * LARGEST_CELL_PX);
  let side = Math.min(width - margin - 26, largest);
  const readable = named && side / n >= 8;
  if (!readable) {
    margin = 22;
    side = Math.min(width - margin - 26, largest);
  }
  const cell = side / n;
  const left = margin + 18;
  const top = 6;
  const svg = picture(Math.min(width, Math.max(Math.ceil(left + side + 6), 160)), Math.ceil(top + side + margin + 22));
  draw(svg, "rect", { x: left, y: top, width: round(side), height: round(side), class: "frame" });
  if (readable) {
    const size = Math.max(Math.min(cell * 0.85, 11), 7);
    spec.names.forEach((name, i) => {
      const text = fitted(name, margin - 8, size);
      draw(svg, "text", { x: left - 4, y: round(top + (i + 0.5) * cell + size / 3), class: "tick end" }, text).style.fontSize = `${size}px`;
      const turn = `translate(${round(left + (i + 0.5) * cell + size / 3)},${round(top + side + 5)}) rotate(-90)`;
      draw(svg, "text", { transform: turn, class: "tick end" }, text).style.fontSize = `${size}px`;
    });
  }
  draw(svg, "text", { x: left + side / 2, y: round(top + side + margin + 14), class: "label middle" }, "taken for");
  draw(svg, "text", { transform: `translate(11,${round(top + side / 2)}) rotate(-90)`, class: "label middle" }, "class");
  const spots = [];
  for (const { truth, answer, count, share, text } of spec.cells) {
    const x = left + answer * cell;
    const y = top + truth * cell;
    const opacity = n > NAMED_CLASSES ? Math.sqrt(share) : 0.12 + 0.88 * share;
    draw(svg, "rect", { x: round(x), y: round(y), width: Math.max(cell, 0.6).toFixed(2), height: Math.max(cell, 0.6).toFixed(2), "fill-opacity": opacity.toFixed(3), class: truth === answer ? "right" : "wrong" });
    if (n <= 20 && cell >= 16) draw(svg, "text", { x: round(x + cell / 2), y: round(y + cell / 2 + 4), class: opacity > 0.5 ? "count light" : "count" }, String(count));
    spots.push({ x: x + cell / 2, y: y + cell / 2, text });
  }
  return { svg, spots };
}

const CHARTS = { lines: lineChart, rows: rowChart, matrix: matrixChart };
