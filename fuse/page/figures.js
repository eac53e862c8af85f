// What each figure shows: from the page's numbers and the view (what the filters let through) to a chart's specification.

const WITHOUT_RATIO = "none";
const EACH_END = 30; // of more classes than a chart names, so many from either end
const ACCURACY = { percent: true, least: 0, most: 1 };

const nothing = { empty: "Nothing to show: no setting that the filters let through has such numbers.", summary: "Nothing to show.", table: { heads: [], lines: [] } };

function audioShare(ratio) {
  const [a, v] = ratio.split(":").map(Number);
  return a / (a + v);
}

const mean = (values) => values.reduce((a, b) => a + b, 0) / values.length;

// The numbers, as the filters let them through.
class View {
  constructor(data, filters) {
    this.data = data;
    this.filters = filters;
    this.settings = data.settings.map((setting, i) => ({ ...setting, i })).filter((s) => this.passes(s));
    const order = [...data.leading, ...data.settings.keys()];
    for (const s of this.settings) s.n = [...new Set(order)].indexOf(s.i);
    this.runs = data.runs.filter((run) => this.keepsSeed(run.seed) && this.passes(run.setting === null ? run : data.settings[run.setting]));
  }

  passes(thing) {
    const chosen = this.filters;
    return ["model", "ratio", "balance"].every((name) => !chosen[name] || chosen[name].has(thing[name] ?? WITHOUT_RATIO));
  }

  keepsSeed(seed) {
    return !this.filters.seed || this.filters.seed.has(String(seed));
  }

  get condition() {
    return Math.min(this.filters.condition || 0, Math.max(this.data.conditions.length - 1, 0));
  }

  // Of some seeds alone there is no interval: it was computed over all of them.
  cell(setting, condition) {
    const found = setting.cells[condition];
    if (!found) return null;
    const [all, low, high, accuracies] = found;
    const kept = accuracies.filter((_, i) => this.keepsSeed(setting.seeds[i]));
    if (!kept.length) return null;
    return kept.length === accuracies.length ? { mean: all, low, high, dots: kept } : { mean: mean(kept), low: null, high: null, dots: kept };
  }

  runsOf(setting) {
    return this.runs.filter((run) => run.setting === setting.i);
  }

  get training() {
    return this.runs.filter((run) => run.setting === null);
  }
}

const interval = (c) => (c.low === null ? "" : `\n95 % interval ${percent(c.low)} to ${percent(c.high)}`);
const seedsOf = (c) => `${c.dots.length} seed${c.dots.length > 1 ? "s" : ""}`;
const cellText = (label, where, c) => `${label}\n${where}: ${percent(c.mean)}${interval(c)}\n${seedsOf(c)}`;

const chosenOf = (settings, state) => settings.find((s) => String(s.i) === state.choice) || settings.reduce((a, b) => (b.dev > a.dev ? b : a));

const BUILDERS = {
  accuracy(view) {
    const condition = view.condition;
    const name = view.data.conditions[condition];
    const found = view.settings.map((s) => [s, view.cell(s, condition)]).filter(([, c]) => c);
    if (!found.length) return nothing;
    const top = found.reduce((a, b) => (b[1].mean > a[1].mean ? b : a));
    return {
      kind: "rows",
      x: { ...ACCURACY, label: `test accuracy, ${name}, %` },
      rows: found.map(([s, c]) => ({
        label: s.label,
        strong: s.i === view.data.best,
        items: [{ key: "all", n: s.i === view.data.best ? 0 : 7, value: c.mean, low: c.low, high: c.high, dots: c.dots.length > 1 ? c.dots : [], text: cellText(s.label, name, c) }],
      })),
      summary: `${found.length} settings under ${name}; the highest mean is that of ${top[0].label}, ${percent(top[1].mean)}.`,
      table: { heads: ["setting", "condition", "mean accuracy", "low", "high", "accuracy of each seed"], lines: found.map(([s, c]) => [s.label, name, c.mean, c.low, c.high, c.dots.join(" ")]) },
    };
  },

  ratios(view) {
    const condition = view.condition;
    const place = view.data.conditions[condition];
    const found = view.settings.map((s) => ({ ...s, cell: view.cell(s, condition) })).filter((s) => s.cell);
    const having = found.filter((s) => s.ratio !== null);
    const names = [...new Set(having.map((s) => s.ratio))].sort((a, b) => audioShare(a) - audioShare(b));
    if (!names.length) return nothing;
    const families = [...new Set(view.data.settings.filter((s) => s.ratio !== null).map((s) => s.family))];
    const series = families.map((family, n) => ({
      key: family,
      n,
      points: having
        .filter((s) => s.family === family)
        .map((s) => ({ x: names.indexOf(s.ratio), y: s.cell.mean, low: s.cell.low, high: s.cell.high, dots: s.cell.dots.length > 1 ? s.cell.dots : [], text: cellText(s.label, place, s.cell) }))
        .sort((a, b) => a.x - b.x),
    })).filter((s) => s.points.length);
    const rules = found.filter((s) => s.ratio === null).map((s, i) => ({ key: String(s.i), n: families.length + i, y: s.cell.mean, text: cellText(s.label, place, s.cell), label: s.label }));
    const best = having.reduce((a, b) => (b.cell.mean > a.cell.mean ? b : a));
    const lead = new Set(view.data.leading.map(String));
    return {
      kind: "lines",
      height: 320,
      hide: rules.map((r) => r.key).filter((key) => !lead.has(key)),
      keys: [...series.map((s) => ({ key: s.key, label: s.key, n: s.n })), ...rules.map((r) => ({ key: r.key, label: r.label, n: r.n, dashed: true }))],
      panels: [{ x: { names, label: "feature lengths, audio : visual" }, y: { ...ACCURACY, label: `test accuracy, ${place}, %` }, series, rules }],
      summary: `Ratios ${names.join(", ")}; the highest mean is ${percent(best.cell.mean)}, ${best.label}.`,
      table: { heads: ["setting", "ratio", "condition", "mean accuracy", "low", "high"], lines: found.map((s) => [s.label, s.ratio ?? "–", place, s.cell.mean, s.cell.low, s.cell.high]) },
    };
  },

  noise(view) {
    const lines = [];
    const panels = view.data.noises.map(({ kind, points }) => {
      const places = [["clean", 0], ...points];
      const series = view.settings.map((s) => {
        const found = places.map(([value, condition], x) => ({ x, value, condition, cell: view.cell(s, condition) })).filter((p) => p.cell);
        for (const p of found) lines.push([s.label, kind, String(p.value), p.cell.mean, p.cell.low, p.cell.high]);
        return { key: String(s.i), n: s.n, points: found.map((p) => ({ x: p.x, y: p.cell.mean, low: p.cell.low, high: p.cell.high, text: cellText(s.label, view.data.conditions[p.condition], p.cell) })) };
      }).filter((s) => s.points.length);
      return { title: kind, x: { names: places.map(([value]) => String(value)), label: "strength" }, y: { ...ACCURACY, label: "test accuracy, %" }, series };
    });
    if (!lines.length) return nothing;
    return {
      kind: "lines", sharedY: true, panels, ...settingKeys(view, view.settings),
      summary: `${panels.length} kinds of noise: ${panels.map((p) => p.title).join(", ")}.`,
      table: { heads: ["setting", "noise", "strength", "mean accuracy", "low", "high"], lines },
    };
  },

  contributions(view) {
    const families = new Set(view.settings.map((s) => s.family));
    const found = view.data.contributions.filter((c) => families.has(c.family));
    if (!found.length) return nothing;
    const several = new Set(found.map((c) => c.family)).size > 1;
    const measures = ["best ratio", "Shapley", "loss without it"].filter((m) => found.some((c) => m in c.measures));
    const label = (c) => (several ? `${c.family} · ` : "") + view.data.conditions[c.condition];
    return {
      kind: "rows",
      keys: measures.map((key, n) => ({ key, label: key, n: n * 9 })),
      x: { label: "share of sound", rule: 0.5 },
      rows: found.map((c) => ({
        label: label(c),
        items: Object.entries(c.measures).map(([key, [value, low, high]]) => ({
          key, value, low, high, n: measures.indexOf(key) * 9,
          text: `${c.family}, ${view.data.conditions[c.condition]}\nshare of sound by ${key}: ${figure(value)}${low === null ? "" : `\n95 % interval ${figure(low)} to ${figure(high)}`}`,
        })),
      })),
      summary: `The share of sound by ${measures.join(", ")}, under ${new Set(found.map((c) => c.condition)).size} conditions.`,
      table: { heads: ["settings", "condition", "measure", "share of sound", "low", "high"], lines: found.flatMap((c) => Object.entries(c.measures).map(([m, v]) => [c.family, view.data.conditions[c.condition], m, ...v])) },
    };
  },

  curves(view) {
    const panels = [
      { title: "sound and sight", series: [] },
      { title: "sound", modality: "audio", series: [] },
      { title: "sight", modality: "visual", series: [] },
    ];
    const lines = [];
    const all = !view.filters.seed;
    for (const s of view.settings) {
      const runs = view.runsOf(s);
      for (const panel of panels) {
        const drawn = curveOf(runs, s.takes, panel.modality);
        if (!drawn) continue;
        if (drawn.curves.length > 1) panel.series.push(...drawn.curves.map((points) => ({ key: String(s.i), n: s.n, thin: true, points })));
        const points = meanCurve(drawn.curves).map((p) => ({ ...p, text: `${s.label}, ${panel.title}\nepoch ${p.x}: ${percent(p.y)} on dev` }));
        for (const p of points) lines.push([s.label, panel.title, p.x, p.y]);
        const found = all && s.convergence[s.takes.length === 2 ? panel.modality || "model" : "model"];
        panel.series.push({ key: String(s.i), n: s.n, points, bare: true, flags: found ? convergenceFlag(s, panel, points, found, drawn.first) : [] });
      }
    }
    view.training.forEach((run, i) => {
      for (const panel of panels) {
        const drawn = curveOf([run], run.takes, panel.modality);
        if (!drawn) continue;
        const points = drawn.curves[0].map((p) => ({ ...p, text: `${run.label}, training\nepoch ${p.x}: ${percent(p.y)} on dev` }));
        panel.series.push({ key: run.name, n: view.data.settings.length + i, points, bare: true, dashed: true });
        for (const p of points) lines.push([`${run.label} (training)`, panel.title, p.x, p.y]);
      }
    });
    const filled = panels.filter((p) => p.series.length);
    if (!filled.length) return nothing;
    for (const panel of filled) Object.assign(panel, { x: { label: "epoch" }, y: { ...ACCURACY, label: "dev accuracy, %" } });
    const keys = settingKeys(view, view.settings);
    const training = view.training.map((run, i) => ({ key: run.name, label: `${run.label} (training)`, n: view.data.settings.length + i, dashed: true }));
    return {
      kind: "lines", sharedY: true, panels: filled, keys: [...keys.keys, ...training], hide: keys.hide,
      summary: `Accuracy on dev against epoch, a panel for each of ${filled.map((p) => p.title).join(", ")}.`,
      table: { heads: ["setting", "curve", "epoch", "mean dev accuracy"], lines },
    };
  },

  discrepancy(view) {
    const panels = [
      { name: "rho", title: "discrepancy rho", y: { log: true, label: "rho, sound over sight" } },
      { name: "alpha", title: "alpha", y: { label: "mean share of sound" } },
    ];
    const scales = [...new Set(view.runs.flatMap((run) => Object.keys(run.curves).filter((k) => k.startsWith("scale_"))))].sort();
    panels.push(...scales.map((name) => ({ name, title: `update scale, ${modalityName(name.slice(6))}`, y: { label: "factor on updates" } })));
    return overEpochs(view, panels, "Who learns faster, over the epochs");
  },

  gradients(view) {
    const names = [...new Set(view.runs.flatMap((run) => Object.keys(run.curves).filter((k) => k.startsWith("grad_norm_"))))].sort();
    return overEpochs(view, names.map((name) => ({ name, title: modalityName(name.slice(10)), y: { log: true, label: "gradient norm" } })), "The norm of the gradients, over the epochs");
  },

  alpha(view, state) {
    const place = view.data.conditions[view.condition];
    const having = view.settings.filter((s) => s.alpha[view.condition]);
    if (!having.length) return nothing;
    const chosen = chosenOf(having, state);
    const known = chosen.alpha[view.condition].map((value, i) => ({ value, name: view.data.classes[i] })).filter((c) => c.value !== null).sort((a, b) => b.value - a.value);
    if (!known.length) return nothing;
    const many = known.length > NAMED_CLASSES;
    const rows = many ? [...known.slice(0, EACH_END), ...known.slice(-EACH_END)] : known;
    const sound = known.filter((c) => c.value > 0.5).length;
    return {
      kind: "rows", slim: true, choices: having.map((s) => [s.i, s.label]), chosen: chosen.i, choiceLabel: "Setting",
      x: { label: `mean alpha, the share of sound: ${place}`, rule: 0.5 },
      rows: rows.map((c) => ({ label: c.name, items: [{ key: "alpha", n: c.value > 0.5 ? 0 : 1, value: c.value, from: 0.5, text: `${c.name}\nalpha ${c.value.toFixed(3)}: leans on ${c.value > 0.5 ? "sound" : "sight"}` }] })),
      summary: `${chosen.label}, ${place}: ${sound} classes lean on sound, ${known.length - sound} on sight${many ? `; drawn are the ${EACH_END} from either end` : ""}.`,
      table: { heads: ["class", "alpha", "leans on"], lines: known.map((c) => [c.name, c.value, c.value > 0.5 ? "sound" : "sight"]) },
    };
  },

  alpha_noise(view, state) {
    const having = view.settings.filter((s) => view.data.noises.some(({ points }) => points.some(([, c]) => s.alpha[c])));
    if (!having.length) return nothing;
    const chosen = chosenOf(having, state);
    const lines = [];
    const panels = view.data.noises.map(({ kind, points }) => {
      const places = [["clean", 0], ...points].filter(([, c]) => chosen.alpha[c]);
      const curve = (share) => places.map(([value, c], x) => ({ x, value, y: share(chosen.alpha[c]) })).filter((p) => p.y !== null);
      const classes = view.data.classes.map((name, i) => ({ name, points: curve((alpha) => alpha[i]) })).filter((c) => c.points.length);
      for (const c of classes) for (const p of c.points) lines.push([c.name, kind, String(p.value), p.y]);
      const middle = curve((alpha) => mean(alpha.filter((a) => a !== null))).map((p) => ({ ...p, text: `${kind}, ${p.value}\nmean alpha over classes ${p.y.toFixed(3)}` }));
      return {
        title: kind, x: { names: places.map(([value]) => String(value)), label: "strength" }, y: { label: "mean alpha, the share of sound" },
        series: [...classes.map((c) => ({ key: "classes", n: 0, thin: true, points: c.points })), { key: "mean over classes", n: 1, points: middle }],
      };
    }).filter((p) => p.x.names.length > 1);
    return {
      kind: "lines", sharedY: true, panels, choices: having.map((s) => [s.i, s.label]), chosen: chosen.i, choiceLabel: "Setting",
      keys: [{ key: "mean over classes", label: "mean over classes", n: 1 }, { key: "classes", label: "single classes", n: 0 }],
      summary: `${chosen.label}: ${panels.length} kinds of noise: ${panels.map((p) => p.title).join(", ")}.`,
      table: { heads: ["class", "noise", "strength", "alpha"], lines },
    };
  },

  confusion(view, state) {
    const there = view.data.confusions.filter((c) => c.condition === view.condition && view.settings.some((s) => s.i === c.setting));
    if (!there.length) return { ...nothing, empty: "No matrix of these settings under this condition is on this page; each run's test.json and conditions/ have theirs." };
    const chosen = there.find((c) => String(c.setting) === state.choice) || there[0];
    const setting = view.data.settings[chosen.setting];
    const totals = {};
    const cells = [];
    for (let i = 0; i < chosen.cells.length; i += 3) {
      const [truth, answer, count] = chosen.cells.slice(i, i + 3);
      totals[truth] = (totals[truth] || 0) + count;
      cells.push({ truth, answer, count });
    }
    const names = view.data.classes;
    for (const c of cells) {
      c.share = c.count / totals[c.truth];
      c.text = c.truth === c.answer ? `${names[c.truth]}: right ${c.count} times\n${percent(c.share)} of the class` : `${names[c.truth]} taken for ${names[c.answer]}: ${c.count} times\n${percent(c.share)} of the class`;
    }
    cells.sort((a, b) => (a.truth === a.answer) - (b.truth === b.answer) || b.count - a.count);
    const wrong = cells.filter((c) => c.truth !== c.answer);
    const worst = wrong[0];
    return {
      kind: "matrix", names, cells, choices: there.map((c) => [c.setting, view.data.settings[c.setting].label]), chosen: chosen.setting, choiceLabel: "Setting",
      summary: `${setting.label}, ${view.data.conditions[chosen.condition]}, all seeds and folds. ${worst ? `Most often, ${names[worst.truth]} is taken for ${names[worst.answer]}.` : "Nothing is taken for another class."}`,
      table: { heads: ["class", "taken for", "clips", "share of the class"], lines: cells.map((c) => [names[c.truth], names[c.answer], c.count, Number(c.share.toPrecision(4))]) },
    };
  },

  times(view) {
    const found = view.settings.map((s) => [s, view.runsOf(s).filter((run) => run.seconds !== null && run.seconds !== undefined)]).filter(([, runs]) => runs.length);
    if (!found.length) return nothing;
    const total = found.flatMap(([, runs]) => runs.map((run) => run.seconds)).reduce((a, b) => a + b, 0);
    return {
      kind: "rows",
      x: { label: "seconds of a run", low: 0 },
      rows: found.map(([s, runs]) => {
        const seconds = runs.map((run) => run.seconds);
        const epochs = mean(runs.map((run) => run.epochs));
        return { label: s.label, strong: s.i === view.data.best, items: [{ key: "s", n: 0, value: mean(seconds), dots: seconds.length > 1 ? seconds : [], text: `${s.label}\n${figure(Number(mean(seconds).toFixed(1)))} s a run, ${figure(Number(epochs.toFixed(1)))} epochs\n${runs.length} run${runs.length > 1 ? "s" : ""}, ${figure(runs[0].parameters)} parameters` }] };
      }),
      summary: `${figure(Number((total / 60).toPrecision(3)))} minutes altogether.`,
      table: { heads: ["setting", "run", "seconds", "epochs", "seconds an epoch", "parameters"], lines: found.flatMap(([s, runs]) => runs.map((run) => [s.label, run.name, run.seconds, run.epochs, Number((run.seconds / Math.max(run.epochs, 1)).toPrecision(3)), run.parameters ?? null])) },
    };
  },
};

const modalityName = (name) => ({ audio: "sound", visual: "sight", shared: "shared part" })[name] || name;

// Legend keys of settings. Of many, those that lead are shown to begin with.
function settingKeys(view, settings) {
  const lead = new Set(view.data.leading);
  const keys = settings.map((s) => ({ key: String(s.i), label: s.label, n: s.n }));
  const hide = settings.length > lead.size ? settings.filter((s) => !lead.has(s.i)).map((s) => String(s.i)) : [];
  return { keys, hide: hide.length === settings.length ? [] : hide };
}

// The points of each run's curve in a panel. A branch that was trained before comes first; the model's own epochs count on from it.
function curveOf(runs, takes, modality) {
  const one = takes.length === 1;
  if (one && takes[0] !== modality) return null;
  const curves = [];
  let first = 1;
  for (const run of runs) {
    const own = run.curves[one || !modality ? "dev_accuracy" : `dev_accuracy_${modality}`];
    const before = modality && run.curves[`before_${modality}`];
    const points = (before || []).map((y, i) => ({ x: 1 + i, y }));
    const start = run.first;
    first = before ? 1 : start;
    points.push(...(own || []).map((y, i) => ({ x: start + i * run.step, y })));
    if (points.some((p) => p.y !== null)) curves.push(points);
  }
  return curves.length ? { curves, first } : null;
}

// By epoch, the mean over the runs that were still going.
function meanCurve(curves) {
  const sums = new Map();
  for (const { x, y } of curves.flat()) {
    if (y === null || y === undefined) continue;
    const [sum, count] = sums.get(x) || [0, 0];
    sums.set(x, [sum + y, count + 1]);
  }
  return [...sums].sort((a, b) => a[0] - b[0]).map(([x, [sum, count]]) => ({ x, y: sum / count }));
}

function convergenceFlag(setting, panel, points, [epoch, known, runs], first) {
  if (epoch === null) return [];
  const x = first - 1 + epoch;
  const next = points.findIndex((p) => p.x >= x);
  if (next < 0) return [];
  const [a, b] = [points[Math.max(next - 1, 0)], points[next]];
  const y = b.x === a.x ? b.y : a.y + ((b.y - a.y) * (x - a.x)) / (b.x - a.x);
  return [{ x, y, text: `${setting.label}, ${panel.title}\nconverged at epoch ${figure(Number(x.toFixed(1)))}, mean of ${known} of ${runs} runs` }];
}

function overEpochs(view, panels, title) {
  const lines = [];
  const series = (panel) => [
    ...view.settings.map((s) => {
      const curves = view.runsOf(s).filter((run) => run.curves[panel.name]).map((run) => run.curves[panel.name].map((y, i) => ({ x: run.first + i * run.step, y: panel.y.log && !(y > 0) ? null : y })));
      const points = meanCurve(curves).map((p) => ({ ...p, text: `${s.label}\n${panel.title}, epoch ${p.x}: ${figure(Number(p.y.toPrecision(3)))}` }));
      for (const p of points) lines.push([s.label, panel.title, p.x, Number(p.y.toPrecision(4))]);
      return { key: String(s.i), n: s.n, points, bare: true };
    }),
    ...view.training.map((run, i) => ({ key: run.name, n: view.data.settings.length + i, bare: true, dashed: true, points: (run.curves[panel.name] || []).map((y, k) => ({ x: run.first + k * run.step, y: panel.y.log && !(y > 0) ? null : y })) })),
  ].filter((s) => s.points.some((p) => p.y !== null));
  const filled = panels.map((p) => ({ ...p, x: { label: "epoch" }, series: series(p) })).filter((p) => p.series.length);
  if (!filled.length) return nothing;
  const drawn = new Set(filled.flatMap((p) => p.series.map((s) => s.key)));
  const { keys, hide } = settingKeys(view, view.settings.filter((s) => drawn.has(String(s.i))));
  const training = view.training.filter((run) => drawn.has(run.name)).map((run) => ({ key: run.name, label: `${run.label} (training)`, n: view.data.settings.length + view.training.indexOf(run), dashed: true }));
  return {
    kind: "lines", panels: filled, keys: [...keys, ...training], hide,
    summary: `${title}: ${filled.map((p) => p.title).join(", ")}.`,
    table: { heads: ["setting", "of", "epoch", "mean over runs"], lines },
  };
}
