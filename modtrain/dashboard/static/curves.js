/* Curves of a run: one small chart for each scalar, all modules in it; staleness; where the time went. */
"use strict";
(() => {
  const M = window.modtrain;
  const UNITS = { step: "step", epoch: "epoch", at: "time" };

  /** Exponential moving average without the bias of its beginning. */
  function smoothed(values, weight) {
    if (!weight) return values;
    let sum = 0;
    let mass = 0;
    return values.map((value) => {
      if (!Number.isFinite(value)) return null;
      sum = weight * sum + (1 - weight) * value;
      mass = weight * mass + (1 - weight);
      return sum / mass;
    });
  }

  /** Of a long curve the values are means, which may be smoothed; how far it went up and down stands beside them. */
  const extremes = (curve, x) =>
    curve.low
      ? { x: x.flatMap((at) => [at, at]), y: curve.low.flatMap((low, i) => [low, curve.high[i]]) }
      : { x, y: curve.value };

  const along = (curve, axis) => (axis === "at" ? curve.at.map((t) => new Date(t * 1000)) : curve[axis]);

  function tracesOf(curves, view) {
    return curves
      .filter((curve) => !view.hidden.has(curve.module))
      .flatMap((curve) => {
        const colour = M.moduleColour(curve.module);
        const x = along(curve, view.axis);
        const place = M.place(curve.module);
        const rough = {
          ...extremes(curve, x),
          mode: "lines",
          hoverinfo: "skip",
          line: { color: colour, width: 1 },
          opacity: 0.22,
        };
        const smooth = {
          x,
          y: smoothed(curve.value, view.smoothing),
          name: M.plain(curve.module),
          mode: curve.value.length < 3 ? "markers" : "lines",
          line: { color: colour, width: 1.8, dash: M.dash(place) },
          marker: { color: colour, symbol: M.symbol(place) },
          hovertemplate: "%{y:.4g}",
        };
        return view.smoothing || curve.low ? [rough, smooth] : [smooth];
      });
  }

  const xaxis = (axis) => ({ title: UNITS[axis], type: axis === "at" ? "date" : "linear" });

  const choice = (label, options, value, change) => {
    const select = M.el(
      "select",
      { onchange: () => change(select.value) },
      Object.entries(options).map(([key, text]) => M.el("option", { value: key, selected: key === value }, text)),
    );
    return M.el("label", {}, M.el("span", {}, label), select);
  };

  /** All curves with their common controls. */
  M.curves = () => {
    const view = { axis: "step", log: false, smoothing: 0.6, hidden: new Set() };
    const charts = M.el("div", { class: "charts" });
    const legend = M.el("div", { class: "legend", role: "group", "aria-label": "Modules shown" });
    const amount = M.el("output", {}, "0.6");
    const slider = M.el("input", {
      type: "range",
      min: 0,
      max: 0.98,
      step: 0.02,
      value: view.smoothing,
      "aria-label": "Smoothing",
      oninput: () => ((view.smoothing = Number(slider.value)), M.say(amount, slider.value), draw()),
    });
    const log = M.el("input", { type: "checkbox", onchange: () => ((view.log = log.checked), draw()) });
    const controls = M.el(
      "div",
      { class: "controls" },
      legend,
      M.el("span", { class: "gap" }),
      choice("along", { step: "step", epoch: "epoch", at: "time" }, view.axis, (axis) => ((view.axis = axis), draw())),
      M.el("label", {}, M.el("span", {}, "smoothing"), slider, amount),
      M.el("label", {}, log, M.el("span", {}, "log scale")),
    );
    const nothing = M.el("p", { class: "note" }, "No loss has been written yet.");
    const node = M.el("div", {}, controls, nothing, charts);
    let curves = [];

    function toggle(module) {
      if (!view.hidden.delete(module)) view.hidden.add(module);
      draw();
    }

    function draw() {
      const modules = [...new Set(curves.map((curve) => curve.module))];
      M.keyed(
        legend,
        modules,
        (module) => module,
        (module) =>
          M.el(
            "button",
            { type: "button", class: "chip", onclick: () => toggle(module) },
            dashOf(module),
            M.module(module),
          ),
        (button, module) => button.setAttribute("aria-pressed", String(!view.hidden.has(module))),
      );
      const names = [...new Set(curves.map((curve) => curve.name))].sort(
        (a, b) => (a === "lr") - (b === "lr") || (b === "loss") - (a === "loss"),
      );
      M.keyed(
        charts,
        names,
        (name) => name,
        (name) =>
          M.el("figure", {}, M.el("figcaption", {}, M.name(name === "lr" ? "learning rate" : name)), M.chart(name)),
        (figure, name) => {
          const own = curves.filter((curve) => curve.name === name);
          figure.lastChild.update(() => ({
            traces: tracesOf(own, name === "lr" ? { ...view, smoothing: 0 } : view),
            extra: {
              revision: `${view.axis} ${view.log}`,
              xaxis: xaxis(view.axis),
              yaxis: { type: view.log ? "log" : "linear" },
            },
          }));
        },
      );
      nothing.hidden = curves.length > 0;
      controls.hidden = curves.length === 0;
    }

    node.update = (news) => ((curves = news), draw());
    return node;
  };

  const WIDTHS = {
    solid: null,
    dash: "6 4",
    dot: "1.5 3",
    dashdot: "6 3 1.5 3",
    longdash: "10 4",
    longdashdot: "10 3 1.5 3",
  };
  const dashOf = (module) =>
    M.svg(
      "svg",
      { class: `dash m${M.place(module)}`, viewBox: "0 0 26 6", "aria-hidden": "true" },
      M.svg("path", { d: "M0 3H26", "stroke-dasharray": WIDTHS[M.dash(M.place(module))] }),
    );

  /** How old the peers were that each version was trained against, in steps. */
  M.staleness = () => {
    const chart = M.chart("Staleness");
    const legend = M.el("ul", { class: "legend" });
    const nothing = M.el("p", { class: "note" }, "Every module sees its peers live, or nothing was exchanged yet.");
    const node = M.el(
      "div",
      {},
      M.el(
        "p",
        { class: "about" },
        "Own step minus the step of the peer’s version that was used; below zero the peer was ahead.",
      ),
      legend,
      nothing,
      chart,
    );
    node.update = (rows) => {
      nothing.hidden = rows.length > 0;
      chart.hidden = rows.length === 0;
      M.keyed(
        legend,
        rows,
        (row) => `${row.module} ${row.peer}`,
        (row) => M.el("li", {}, dashOf(row.peer), M.module(row.module), " used ", M.module(row.peer)),
      );
      for (const li of legend.children)
        li.firstChild.setAttribute(
          "class",
          `dash ${li.children[1].firstChild.getAttribute("class").replace("glyph", "")}`,
        );
      chart.update(() => ({
        traces: rows.map((row) => ({
          x: row.step,
          y: row.behind,
          name: M.plain(`${row.module} used ${row.peer}`),
          mode: row.step.length < 60 ? "lines+markers" : "lines",
          hovertemplate: "%{y} steps",
          line: { color: M.moduleColour(row.module), dash: M.dash(M.place(row.peer)), width: 1.6, shape: "hv" },
          marker: { color: M.moduleColour(row.module), symbol: M.symbol(M.place(row.peer)), size: 6 },
        })),
        extra: { revision: "staleness", xaxis: xaxis("step"), yaxis: { title: "steps behind", zeroline: true } },
      }));
    };
    return node;
  };

  const PARTS = ["compute", "data", "waiting", "exchange"];

  /** The share of each worker's time: a bar with its parts named. */
  M.timeShares = () => {
    const list = M.el("div", { class: "shares" });
    const legend = M.el(
      "ul",
      { class: "legend" },
      PARTS.map((part) => M.el("li", {}, M.el("span", { class: `swatch part-${part}` }), part)),
    );
    const nothing = M.el("p", { class: "note" }, "No worker has said yet where its time goes.");
    const node = M.el("div", {}, legend, nothing, list);
    node.update = (rows) => {
      const known = rows.filter((row) => PARTS.some((part) => row[part] > 0));
      nothing.hidden = known.length > 0;
      legend.hidden = known.length === 0;
      M.keyed(
        list,
        known,
        (row) => row.worker,
        () => M.el("div", { class: "share" }),
        (line, row) => M.fresh(line, row, () => share(row)),
      );
    };
    return node;
  };

  function share(row) {
    const total = PARTS.reduce((sum, part) => sum + (row[part] || 0), 0);
    const words = PARTS.map((part) => `${part} ${M.percent(row[part] / total)}`);
    const bar = M.el(
      "div",
      { class: "sharebar", role: "img", "aria-label": words.join(", ") },
      PARTS.filter((part) => row[part] > 0).map((part) => {
        const piece = M.el(
          "span",
          { class: `part-${part}`, title: `${part}: ${M.duration(row[part])}` },
          row[part] / total > 0.13 ? M.el("b", {}, M.percent(row[part] / total)) : null,
        );
        piece.style.flexGrow = String(row[part] / total);
        return piece;
      }),
    );
    return [
      M.el(
        "div",
        { class: "sharename" },
        row.modules.map((module) => M.module(module)),
        M.el("span", { class: "muted" }, M.duration(total)),
      ),
      bar,
      M.el("div", { class: "under" }, words.join(" · ")),
    ];
  }
})();
