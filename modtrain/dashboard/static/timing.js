/* Staleness: how old the peers were that each version was trained against; and the time of each worker by activity. */
"use strict";
(() => {
  const M = window.modtrain;

  /** How old the peers were that each version was trained against, in steps. */
  M.staleness = () => {
    const chart = M.chart("Staleness");
    const legend = M.el("ul", { class: "legend" });
    const nothing = M.el("p", { class: "note" }, "Every module sees its peers live, or no version was exchanged yet.");
    const about = M.el(
      "p",
      { class: "about" },
      "Own step minus the step of the peer’s version that was used; below zero the peer was ahead.",
    );
    let axis = "step";
    let rows = [];
    const along = M.choice("along", { step: "step", at: "time" }, axis, (chosen) => ((axis = chosen), draw()));
    const controls = M.el("div", { class: "controls aboutline" }, about, along);
    const node = M.el("div", {}, controls, legend, nothing, chart);

    function draw() {
      nothing.hidden = rows.length > 0;
      controls.hidden = chart.hidden = rows.length === 0;
      M.keyed(
        legend,
        rows,
        (row) => `${row.module} ${row.peer}`,
        (row) =>
          M.el("li", {}, M.dashOf(row.module, M.place(row.peer)), M.module(row.module), " used ", M.module(row.peer)),
      );
      chart.update(() => ({
        traces: rows.map((row) => ({
          x: axis === "at" ? M.dates(row.at) : row.step,
          y: row.behind,
          name: M.plain(`${row.module} used ${row.peer}`),
          mode: row.step.length < 60 ? "lines+markers" : "lines",
          hovertemplate: "%{y} steps",
          line: {
            color: M.moduleColour(row.module),
            dash: M.dash(M.place(row.peer)),
            width: row.step.length < 200 ? 1.6 : 1,
            shape: "hv",
          },
          marker: { color: M.moduleColour(row.module), symbol: M.symbol(M.place(row.peer)), size: 6 },
        })),
        extra: { revision: axis, xaxis: M.along(axis), yaxis: { title: "steps behind", zeroline: true } },
      }));
    }

    node.update = (next) => ((rows = next), draw());
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
