/* Charts by Plotly: one look for all, drawn when they come into sight, brought up to date without losing a zoom. */
"use strict";
(() => {
  const M = window.modtrain;
  const DASHES = ["solid", "dash", "dot", "dashdot", "longdash", "longdashdot", "solid"];
  const SYMBOLS = ["circle", "square", "diamond", "triangle-up", "cross", "triangle-down", "hexagon2"];
  const CONFIG = {
    displaylogo: false,
    responsive: true,
    doubleClick: "reset+autosize",
    showTips: false,
    modeBarButtons: [["zoomIn2d", "zoomOut2d", "resetScale2d"]],
  };

  /* Plotly reads some markup in its texts; names of modules and metrics are text and nothing else. */
  M.plain = (text) => String(text).replace(/&/g, "&amp;").replace(/</g, "&lt;");

  const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  M.colour = css;
  M.moduleColour = (module) => css(`--m${M.place(module)}`);
  M.dash = (place) => DASHES[place % DASHES.length];
  M.symbol = (place) => SYMBOLS[place % SYMBOLS.length];

  function layout(extra) {
    const line = css("--line");
    const axis = {
      gridcolor: line,
      linecolor: line,
      zerolinecolor: line,
      tickcolor: line,
      automargin: true,
      tickfont: { size: 11 },
      nticks: 6,
    };
    const titled = (of) => ({ text: M.plain(of?.title ?? ""), font: { size: 11.5 }, standoff: 5 });
    return {
      paper_bgcolor: "rgba(0,0,0,0)",
      plot_bgcolor: "rgba(0,0,0,0)",
      autosize: true,
      showlegend: false,
      font: { family: "inherit", size: 11.5, color: css("--muted") },
      margin: { l: 44, r: 10, t: 8, b: 34 },
      uirevision: extra.revision,
      hoverlabel: { bgcolor: css("--surface"), bordercolor: line, font: { color: css("--text"), size: 12 } },
      modebar: { bgcolor: "rgba(0,0,0,0)", color: css("--muted"), activecolor: css("--accent") },
      hovermode: extra.hovermode ?? "x unified",
      xaxis: { ...axis, ...extra.xaxis, title: titled(extra.xaxis) },
      yaxis: { ...axis, ...extra.yaxis, title: titled(extra.yaxis) },
    };
  }

  const seen = new IntersectionObserver(
    (entries) => {
      for (const { target, isIntersecting } of entries) {
        target.inSight = isIntersecting;
        if (isIntersecting) draw(target);
      }
    },
    { rootMargin: "200px" },
  );

  function draw(box) {
    if (!window.Plotly || !box.waits || !box.inSight) return;
    const { traces, extra } = box.waits();
    box.waits = null;
    window.Plotly.react(box, traces, layout(extra), CONFIG);
  }

  /** A chart; `update(make)` where make() gives {traces, extra: {revision, xaxis, yaxis, hovermode}}, titles as plain text. */
  M.chart = (label) => {
    const box = M.el("div", { class: "chart", role: "figure", "aria-label": label });
    seen.observe(box);
    box.update = (make) => {
      box.make = box.waits = make;
      draw(box);
    };
    return box;
  };

  /* plotly.js brings a style for maps, which are not drawn here, and a strict policy would only complain of it. */
  const append = document.head.appendChild;
  document.head.appendChild = (node) => (node.localName === "style" ? node : append.call(document.head, node));

  const script = document.getElementById("plotly");
  script?.addEventListener("load", () => delete document.head.appendChild);
  script?.addEventListener("load", () => document.querySelectorAll(".chart").forEach(draw));
  script?.addEventListener("error", () =>
    document
      .querySelectorAll(".chart")
      .forEach((box) =>
        box.replaceChildren(M.el("p", { class: "note" }, "The charts need static/plotly.min.js, which did not load.")),
      ),
  );
  document.addEventListener("modtrain-theme", () => {
    for (const box of document.querySelectorAll(".chart")) if (box.make) box.update(box.make);
  });
})();
