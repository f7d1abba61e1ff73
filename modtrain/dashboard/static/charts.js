/* Charts by Plotly, which is loaded when the first comes near: one style for all, updated without losing a zoom. */
"use strict";
(() => {
  const M = window.modtrain;
  const DASHES = ["solid", "dash", "dot", "dashdot", "longdash", "longdashdot", "solid"];
  const SYMBOLS = ["circle", "square", "diamond", "triangle-up", "cross", "triangle-down", "hexagon2"];
  const CONFIG = {
    displaylogo: false,
    doubleClick: "reset+autosize",
    showTips: false,
    modeBarButtons: [["zoomIn2d", "zoomOut2d", "resetScale2d"]],
  };

  /* Plotly interprets some markup in its texts; names of modules and metrics are plain text. */
  M.plain = (text) => String(text).replace(/&/g, "&amp;").replace(/</g, "&lt;");

  const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  M.colour = css;
  M.moduleColour = (module) => css(`--m${M.place(module)}`);
  M.dash = (place) => DASHES[place % DASHES.length];
  M.symbol = (place) => SYMBOLS[place % SYMBOLS.length];

  /** A choice among a few words: {key: text}. */
  M.choice = (label, options, value, change) => {
    const select = M.el(
      "select",
      { onchange: () => change(select.value) },
      Object.entries(options).map(([key, text]) => M.el("option", { value: key, selected: key === value }, text)),
    );
    return M.el("label", {}, M.el("span", {}, label), select);
  };

  const WIDTHS = {
    solid: null,
    dash: "6 4",
    dot: "1.5 3",
    dashdot: "6 3 1.5 3",
    longdash: "10 4",
    longdashdot: "10 3 1.5 3",
  };

  /** A line in a legend, in a module's colour and dash, or in the dash of another place. */
  M.dashOf = (module, place = M.place(module)) =>
    M.svg(
      "svg",
      { class: `dash m${M.place(module)}`, viewBox: "0 0 26 6", "aria-hidden": "true" },
      M.svg("path", { d: "M0 3H26", "stroke-dasharray": WIDTHS[M.dash(place)] }),
    );

  /** The horizontal axis along steps, epochs or time. */
  M.along = (axis) => ({
    title: { step: "step", epoch: "epoch", at: "time" }[axis],
    ...(axis === "at" ? { type: "date" } : { type: "linear", rangemode: "tozero" }),
  });
  M.dates = (times) => times.map((t) => new Date(t * 1000));

  /* Full numbers at a few places: Plotly's own digits between powers of ten are small and overprint each other. */
  const logarithmic = (low, high) => ({
    type: "log",
    nticks: Math.min(8, Math.max(3, Math.ceil(Math.log10(high / low) || 0) + 1)),
    tickformat: low < 1e-5 ? "~e" : ".3~g",
  });
  const LINEAR = { type: "linear", exponentformat: "e", minexponent: 4 };

  /** The vertical axis for these values: a level line gets room, however small the rounding in it is. */
  M.upright = (values, log = false) => {
    const known = values.filter((value) => Number.isFinite(value) && (!log || value > 0));
    const low = known.reduce((a, b) => Math.min(a, b), Infinity);
    const high = known.reduce((a, b) => Math.max(a, b), -Infinity);
    const level = known.length > 0 && high - low <= 1e-9 * Math.max(Math.abs(low), Math.abs(high));
    const place = log ? Math.log10(low) : low;
    const room = log ? 0.3 : 0.1 * Math.abs(low) || 1;
    return { ...(log ? logarithmic(low, high) : LINEAR), ...(level ? { range: [place - room, place + room] } : {}) };
  };

  /** A thin vertical line with a text, at a place of the horizontal axis. */
  const mark = ({ x, text }) => ({
    type: "line",
    xref: "x",
    yref: "paper",
    x0: x,
    x1: x,
    y0: 0,
    y1: 1,
    layer: "below",
    line: { color: css("--muted"), width: 1 },
    label: { text: M.plain(text), textposition: "end", textangle: -90, xanchor: "right", yanchor: "top", font: { size: 10 } },
  });

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
      shapes: (extra.marks ?? []).map(mark),
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

  /* Cells of a grid change their width without the window, as when a scrollbar comes or another chart. */
  const resized = new ResizeObserver((entries) => {
    for (const { target } of entries) {
      if (M.printing || !target.drawnWidth || !target.offsetWidth || target.offsetWidth === target.drawnWidth) continue;
      target.drawnWidth = target.offsetWidth;
      window.Plotly.Plots.resize(target);
    }
  });

  function draw(box) {
    if (!box.waits || !(box.inSight || M.printing) || !box.offsetWidth) return;
    if (!window.Plotly) return void load();
    const { traces, extra } = box.waits();
    box.waits = null;
    box.drawnWidth = box.offsetWidth;
    window.Plotly.react(box, traces, layout(extra), CONFIG);
    for (const svg of box.querySelectorAll(".main-svg")) fitPaper(svg);
  }

  /* Paper is narrower than the screen, and nothing may be drawn between the two: so the picture scales. */
  function fitPaper(svg) {
    svg.setAttribute("preserveAspectRatio", "xMinYMid meet");
    if (M.printing) svg.setAttribute("viewBox", `0 0 ${svg.getAttribute("width")} ${svg.getAttribute("height")}`);
    else svg.removeAttribute("viewBox");
  }

  /** A chart; `update(make)` where make() gives {traces, extra: {revision, xaxis, yaxis, hovermode, marks: [{x, text}]}}, texts plain. */
  M.chart = (label) => {
    const box = M.el("div", { class: "chart", role: "figure", "aria-label": label });
    seen.observe(box);
    resized.observe(box);
    box.update = (make) => {
      box.make = box.waits = make;
      draw(box);
    };
    return box;
  };

  const boxes = () => document.querySelectorAll(".chart");
  const note = (text) => boxes().forEach((box) => box.replaceChildren(M.el("p", { class: "note" }, text)));

  /* plotly.js brings a style for maps, which are not drawn here, and a strict policy would only complain of it. */
  const append = document.head.appendChild;
  const withoutStyle = (node) => (node.localName === "style" ? node : append.call(document.head, node));

  let loading = null;

  /** Load Plotly, which costs a browser more than the rest of the page, and draw what waits for it. */
  function load() {
    loading ??= new Promise((done, failed) => {
      document.head.appendChild = withoutStyle;
      const src = `${M.base}static/plotly.min.js`;
      document.head.append(M.el("script", { id: "plotly", src, onload: done, onerror: failed }));
      note("The chart is loading.");
    })
      .then(
        () => boxes().forEach((box) => (box.replaceChildren(), draw(box))),
        () => {
          document.getElementById("plotly").remove();
          note("The charts need static/plotly.min.js, which did not load.");
          loading = null; /* the next chart or version of the data tries again */
        },
      )
      .finally(() => delete document.head.appendChild);
    return loading;
  }

  addEventListener("scroll", () => boxes().length && load(), { once: true, passive: true });

  /* Paper shows what is drawn as soon as the dialog opens: its key waits for the script. */
  addEventListener("keydown", (event) => {
    const { key, ctrlKey, metaKey, shiftKey, altKey } = event;
    if (window.Plotly || key !== "p" || ctrlKey === metaKey || shiftKey || altKey) return;
    event.preventDefault();
    load().then(() => window.print());
  });
  /* The browser's menu does not wait: the paper says what to do, and the charts are there the next time. */
  addEventListener("beforeprint", () => {
    if (window.Plotly || !boxes().length) return;
    load();
    note("This chart had not been loaded; print the page again.");
  });
  document.addEventListener("modtrain-theme", () => {
    for (const box of boxes()) if (box.make) box.update(box.make);
  });
})();
