/* Curves of a run: one small chart for each scalar, all modules in it. */
"use strict";
(() => {
  const M = window.modtrain;
  const EVALUATION = "evaluation";
  const MARKED = 60;
  const RARE = 0.02;

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

  const along = (curve, axis) => (axis === "at" ? M.dates(curve.at) : curve[axis]);

  /** The values behind their smoothed line; of a long curve the band between its extremes. */
  function behind(curve, x, colour, log) {
    const line = { x, mode: "lines", hoverinfo: "skip", line: { color: colour, width: 1 }, opacity: 0.25 };
    if (!curve.low) return [{ ...line, y: curve.value }];
    const least = log ? curve.low.reduce((a, b) => (b > 0 ? Math.min(a, b) : a), Infinity) : -Infinity;
    const edge = { ...line, line: { width: 0 }, opacity: 1, fillcolor: `${colour}30` };
    return [
      { ...edge, y: curve.low.map((value) => Math.max(value, least)) },
      { ...edge, y: curve.high.map((value) => Math.max(value, least)), fill: "tonexty" },
    ];
  }

  function front(curve, x, colour, smoothing) {
    const place = M.place(curve.module);
    const mode = curve.value.length < 3 ? "markers" : "lines";
    return {
      x,
      y: smoothed(curve.value, smoothing),
      name: M.plain(curve.module),
      mode: curve.module === EVALUATION && curve.value.length < MARKED ? "lines+markers" : mode,
      line: { color: colour, width: 1.8, dash: M.dash(place) },
      marker: { color: colour, symbol: M.symbol(place), size: 6 },
      hovertemplate: "%{y:.4g}",
    };
  }

  /** The learning rate and evaluations are not smoothed: their exact values matter. */
  const smoothingOf = (curve, view) => (curve.name === "lr" || curve.module === EVALUATION ? 0 : view.smoothing);

  function tracesOf(curves, view) {
    const drawn = curves.map((curve) => {
      const [x, colour] = [along(curve, view.axis), M.moduleColour(curve.module)];
      const smoothing = smoothingOf(curve, view);
      return [smoothing || curve.low ? behind(curve, x, colour, view.log) : [], front(curve, x, colour, smoothing)];
    });
    return [...drawn.flatMap(([rough]) => rough), ...drawn.map(([, smooth]) => smooth)];
  }

  /** The vertical axis: all means, and the extremes without the rarest, which would flatten the rest. */
  function upright(curves, log) {
    const values = curves.flatMap((curve) => curve.value);
    const axis = M.upright(values, log);
    if (axis.range || !curves.some((curve) => curve.low)) return axis;
    const share = (side, part) => {
      const all = curves
        .flatMap((curve) => curve[side] ?? [])
        .filter((value) => !log || value > 0)
        .sort((a, b) => a - b);
      return all[Math.round(part * (all.length - 1))];
    };
    const known = values.filter((value) => !log || value > 0);
    const ends = [
      known.reduce((a, b) => Math.min(a, b), share("low", RARE)),
      known.reduce((a, b) => Math.max(a, b), share("high", 1 - RARE)),
    ].map((value) => (log ? Math.log10(value) : value));
    const room = 0.05 * (ends[1] - ends[0]);
    return { ...axis, range: [ends[0] - room, ends[1] + room] };
  }

  /** The beginnings of the stages of the run, along an axis. */
  const marksOf = (stages, axis) =>
    stages
      .filter((stage) => stage[axis] !== null && stage.step !== null)
      .map((stage) => ({ x: axis === "at" ? M.dates([stage.at])[0] : stage[axis], text: stage.name }));

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
      M.choice(
        "along",
        { step: "step", epoch: "epoch", at: "time" },
        view.axis,
        (axis) => ((view.axis = axis), draw()),
      ),
      M.el("label", {}, M.el("span", {}, "smoothing"), slider, amount),
      M.el("label", {}, log, M.el("span", {}, "log scale")),
    );
    const nothing = M.el("p", { class: "note" }, "No loss has been reported yet.");
    const single = M.el("p", { class: "under", hidden: true });
    const node = M.el("div", {}, controls, nothing, charts, single);
    let curves = [];
    let stages = [];

    function toggle(module) {
      if (!view.hidden.delete(module)) view.hidden.add(module);
      draw();
    }

    function draw() {
      /* One point is a number, not a curve. */
      const once = curves.filter((curve) => curve.module === EVALUATION && curve.value.length < 2);
      const many = curves.filter((curve) => !once.includes(curve));
      const modules = [...new Set(many.map((curve) => curve.module))];
      M.keyed(
        legend,
        modules,
        (module) => module,
        (module) =>
          M.el(
            "button",
            { type: "button", class: "chip", onclick: () => toggle(module) },
            M.dashOf(module),
            M.module(module),
          ),
        (button, module) => button.setAttribute("aria-pressed", String(!view.hidden.has(module))),
      );
      const names = [...new Set(many.map((curve) => curve.name))].sort(
        (a, b) => (a === "lr") - (b === "lr") || (b === "loss") - (a === "loss"),
      );
      M.keyed(
        charts,
        names,
        (name) => name,
        (name) =>
          M.el("figure", {}, M.el("figcaption", {}, M.name(name === "lr" ? "learning rate" : name)), M.chart(name)),
        (figure, name) => {
          const own = many.filter((curve) => curve.name === name && !view.hidden.has(curve.module));
          figure.lastChild.update(() => ({
            traces: tracesOf(own, view),
            extra: {
              revision: `${view.axis} ${view.log}`,
              xaxis: M.along(view.axis),
              yaxis: upright(own, view.log),
              marks: marksOf(stages, view.axis),
            },
          }));
        },
      );
      nothing.hidden = many.length > 0;
      controls.hidden = many.length === 0;
      single.hidden = once.length === 0;
      M.say(single, `Evaluated once so far, so no curve yet: ${once.map((curve) => curve.name).join(", ")}.`);
    }

    node.update = (next, begun) => (([curves, stages] = [next, begun ?? []]), draw());
    return node;
  };
})();
