/* Staleness of each pair of modules; and the time of each worker by activity. */
"use strict";
(() => {
  const M = window.modtrain;

  /** How old the peers were that each version was trained against, in steps: a small chart for each pair. */
  M.staleness = () => {
    const charts = M.el("div", { class: "charts small" });
    const nothing = M.el("p", { class: "note" }, "Every module sees its peers live, or no version was exchanged yet.");
    const band = " Of many versions: the median, and the band that holds 80 % of them.";
    const about = M.el("p", { class: "about" });
    let axis = "step";
    let rows = [];
    const along = M.choice("along", { step: "step", at: "time" }, axis, (chosen) => ((axis = chosen), draw()));
    const controls = M.el("div", { class: "controls aboutline" }, about, along);
    const node = M.el("div", {}, controls, nothing, charts);

    function draw() {
      nothing.hidden = rows.length > 0;
      controls.hidden = rows.length === 0;
      const bound = rows.some(({ bound }) => Number.isFinite(bound)) ? " The dotted line is what max_staleness allows." : "";
      M.say(
        about,
        "Own step minus the step of the peer’s version that was used; below zero the peer was ahead." +
          (rows.some((row) => row.low) ? band : "") +
          bound,
      );
      const upright = heightOf(rows);
      M.keyed(
        charts,
        rows,
        (row) => `${row.module} ${row.peer}`,
        (row) =>
          M.el(
            "figure",
            {},
            M.el("figcaption", {}, M.module(row.module), M.el("span", { class: "muted" }, " used "), M.module(row.peer)),
            M.chart(`Staleness of ${row.peer} in ${row.module}`),
          ),
        (figure, row) =>
          figure.lastChild.update(() => ({
            traces: tracesOf(row, axis),
            extra: { revision: axis, xaxis: M.along(axis), yaxis: { title: "steps behind", zeroline: true, ...upright } },
          })),
      );
    }

    node.update = (next) => ((rows = next), draw());
    return node;
  };

  /** The same range for all pairs, so that they can be compared. */
  function heightOf(rows) {
    const values = rows.flatMap((row) => [0, ...row.behind, ...(row.low ?? []), ...(row.high ?? []), row.bound ?? 0]);
    const [low, high] = [values.reduce((a, b) => Math.min(a, b), 0), values.reduce((a, b) => Math.max(a, b), 1)];
    const room = 0.06 * (high - low);
    return { range: [low - (low < 0 ? room : room / 2), high + room] };
  }

  function tracesOf(row, axis) {
    const [x, colour] = [axis === "at" ? M.dates(row.at) : row.step, M.moduleColour(row.module)];
    const edge = { x, mode: "lines", hoverinfo: "skip", line: { width: 0, shape: "hv" }, fillcolor: `${colour}40` };
    const band = row.low ? [{ ...edge, y: row.low }, { ...edge, y: row.high, fill: "tonexty" }] : [];
    const bound = Number.isFinite(row.bound)
      ? [
          {
            x: [x[0], x.at(-1)],
            y: [row.bound, row.bound],
            name: "bound",
            mode: "lines",
            hovertemplate: "%{y} steps",
            line: { color: M.colour("--muted"), width: 1.4, dash: "dot" },
          },
        ]
      : [];
    return [
      ...band,
      ...bound,
      {
        x,
        y: row.behind,
        name: row.low ? "median" : M.plain(`used ${row.peer}`),
        mode: row.step.length < 60 && !row.low ? "lines+markers" : "lines",
        hovertemplate: "%{y} steps",
        line: { color: colour, width: 1.6, shape: "hv" },
        marker: { color: colour, symbol: M.symbol(M.place(row.module)), size: 5 },
      },
    ];
  }

  const PARTS = ["compute", "data", "waiting", "exchange", "evaluation"];

  /** The share of each worker's time: a bar with its parts named. */
  M.timeShares = () => {
    const list = M.el("div", { class: "shares" });
    const legend = M.el(
      "ul",
      { class: "legend" },
      PARTS.map((part) => M.el("li", {}, M.el("span", { class: `swatch part-${part}` }), part)),
    );
    const nothing = M.el("p", { class: "note" }, "No worker has reported its time yet.");
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
