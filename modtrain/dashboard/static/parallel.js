/* Parallel coordinates of a sweep: an axis for each parameter that varies, the last one is the metric; a line a trial. */
"use strict";
(() => {
  const M = window.modtrain;
  const HEIGHT = 300;
  const TOP = 44;
  const FOOT = 26;

  /* cividis: light and dark apart also for those who do not see red and green (Nuñez et al. 2018). */
  const CIVIDIS = [
    "#00224e",
    "#123570",
    "#3b496c",
    "#575d6d",
    "#707173",
    "#8a8678",
    "#a59c74",
    "#c3b369",
    "#e1cc55",
    "#fee838",
  ];

  const mix = (a, b, t) =>
    `rgb(${[1, 3, 5].map((at) => Math.round(parseInt(a.slice(at, at + 2), 16) * (1 - t) + parseInt(b.slice(at, at + 2), 16) * t)).join(",")})`;

  /** Of a share in [0, 1], within what stands out from the background. */
  M.shade = (share) => {
    const [low, high] = M.theme() === "dark" ? [0.34, 1] : [0, 0.84];
    const at = (low + (high - low) * Math.min(1, Math.max(0, share))) * (CIVIDIS.length - 1);
    const i = Math.min(Math.floor(at), CIVIDIS.length - 2);
    return mix(CIVIDIS[i], CIVIDIS[i + 1], at - i);
  };

  /** An axis: numbers evenly, or in the logarithm where they span much; words one below the other. */
  function axisOf(title, values, even = false) {
    const known = values.filter((value) => value !== null && value !== undefined);
    if (known.length && known.every((value) => typeof value === "number")) {
      const [low, high] = [Math.min(...known), Math.max(...known)];
      const log = !even && low > 0 && high / low >= 20;
      const scale = log ? Math.log : (value) => value;
      const place = (value) => (high === low ? 0.5 : (scale(value) - scale(low)) / (scale(high) - scale(low)));
      const distinct = [...new Set(known)];
      const ticks =
        distinct.length <= 6
          ? distinct
          : [0, 0.25, 0.5, 0.75, 1].map((t) =>
              log ? Math.exp(Math.log(low) + t * Math.log(high / low)) : low + t * (high - low),
            );
      return {
        title: log ? `${title} (log)` : title,
        place,
        ticks: ticks.map((value) => [place(value), M.number(value)]),
      };
    }
    const words = [...new Set(known.map(M.value))].sort((a, b) => a.localeCompare(b, "en", { numeric: true }));
    const place = (value) => (words.length < 2 ? 0.5 : words.indexOf(M.value(value)) / (words.length - 1));
    return { title, place, ticks: words.slice(0, 12).map((word) => [place(word), word]) };
  }

  M.parallel = (pick) => {
    const drawing = M.svg("svg", { class: "parallel", role: "img" });
    const node = M.el(
      "div",
      { class: "scroll", role: "region", "aria-label": "Parallel coordinates", tabindex: "0" },
      drawing,
    );
    let data = null;
    let width = 900;

    function draw() {
      if (!data) return;
      const { trials, varies, metric } = data;
      const axes = [
        ...varies.map((name) => ({
          ...axisOf(
            name,
            trials.map((t) => t.values[name]),
          ),
          of: (t) => t.values[name],
        })),
        ...(metric
          ? [
              {
                ...axisOf(
                  metric,
                  trials.map((t) => t.result),
                  true,
                ),
                of: (t) => t.result,
                last: true,
              },
            ]
          : []),
      ];
      const full = Math.max(width, axes.length * 120);
      const x = (i) => (axes.length < 2 ? full / 2 : 70 + (i / (axes.length - 1)) * (full - 160));
      const y = (share) => HEIGHT - FOOT - share * (HEIGHT - TOP - FOOT);
      drawing.setAttribute("viewBox", `0 0 ${full} ${HEIGHT}`);
      drawing.setAttribute("width", full);
      drawing.setAttribute("height", HEIGHT);
      drawing.setAttribute(
        "aria-label",
        `${M.plural(trials.length, "trial")} over ${axes.map((axis) => axis.title).join(", ")}; the table below says the same`,
      );
      drawing.replaceChildren(
        ...[...trials].reverse().map((trial) => line(trial, axes, x, y)),
        ...axes.flatMap((axis, i) => [
          M.svg("path", { class: `axis ${axis.last ? "last" : ""}`, d: `M${x(i)} ${TOP - 8}V${HEIGHT - FOOT + 8}` }),
          M.svg(
            "text",
            { class: "axisname", x: x(i), y: i % 2 && axes.length > 5 ? 14 : 26, "text-anchor": "middle" },
            axis.title,
          ),
          ...axis.ticks.map(([at, text]) => M.svg("text", { class: "tickname", x: x(i) + 7, y: y(at) + 4 }, text)),
        ]),
      );
    }

    function line(trial, axes, x, y) {
      const points = axes
        .map((axis, i) => [axis, i, axis.of(trial)])
        .filter(([, , value]) => value !== null && value !== undefined)
        .map(([axis, i, value]) => [x(i), y(axis.place(value))]);
      const path = M.svg(
        "path",
        {
          class: `trial trial-${trial.state} ${trial.number === data.picked ? "is" : ""}`,
          d: points.map(([px, py], n) => `${n ? "L" : "M"}${px.toFixed(1)} ${py.toFixed(1)}`).join(""),
          "data-trial": trial.number,
        },
        M.svg(
          "title",
          {},
          `trial ${trial.number}, ${trial.state}${trial.result === null ? "" : `: ${M.number(trial.result)}`}`,
        ),
      );
      if (trial.result !== null && trial.result !== undefined) path.style.stroke = M.shade(data.share(trial));
      path.addEventListener("pointerenter", () => pick(trial.number));
      path.addEventListener("pointerleave", () => pick(null));
      return path;
    }

    new ResizeObserver(([entry]) => {
      width = Math.max(280, Math.round(entry.contentRect.width));
      draw();
    }).observe(node);
    document.addEventListener("modtrain-theme", draw);
    node.update = (news) => ((data = { ...news, picked: data?.picked }), draw());
    node.pick = (number) => {
      if (!data || data.picked === number) return;
      data.picked = number;
      for (const path of drawing.querySelectorAll(".trial"))
        path.classList.toggle("is", path.dataset.trial === String(number));
      drawing.classList.toggle("picking", number !== null);
    };
    return node;
  };
})();
