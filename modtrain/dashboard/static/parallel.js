/* Parallel coordinates of a sweep: an axis for each parameter that varies, the last one is the metric; a line a trial. */
"use strict";
(() => {
  const M = window.modtrain;
  const HEIGHT = 300;
  const TOP = 44;
  const FOOT = 26;
  const FEW = 6;
  const ROOM = 15;
  const LETTER = 7.6;
  const LEAST = 84;

  /* cividis: readable with red-green colour blindness (Nuñez et al. 2018). */
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

  /** Round numbers from low to high; whole ones where all values are. */
  function even(low, high, whole) {
    const power = 10 ** Math.floor(Math.log10((high - low) / 5));
    const step = [1, 2, 5, 10].map((by) => by * power).find((by) => by >= (high - low) / 5.001);
    const by = whole ? Math.max(1, Math.round(step)) : step;
    const values = [];
    for (let n = Math.ceil(low / by - 1e-9); n * by <= high + 1e-9 * by; n += 1)
      values.push(Number((n * by).toPrecision(12)));
    return values;
  }

  /** The same in the logarithm: powers of ten, and between them 2 and 5 where there is room. */
  function decades(low, high) {
    const steps = high / low > 2000 ? [1] : [1, 2, 5];
    const values = [];
    for (let power = Math.floor(Math.log10(low)); power <= Math.log10(high); power += 1)
      values.push(...steps.map((by) => Number((by * 10 ** power).toPrecision(12))));
    return values.filter((value) => value >= low && value <= high);
  }

  /** Those that leave room for those before them: [[share, text, best], ...]. */
  function apart(ticks) {
    const taken = [];
    for (const tick of ticks)
      if (taken.every(([share]) => Math.abs(share - tick[0]) * (HEIGHT - TOP - FOOT) >= ROOM)) taken.push(tick);
    return taken;
  }

  /** An axis: numbers evenly, or in the logarithm where they span much; words one below the other. `best` is named first. */
  function axisOf(title, values, { best = null, linear = false } = {}) {
    const known = values.filter((value) => value !== null && value !== undefined);
    if (!known.length || !known.every((value) => typeof value === "number")) return worded(title, known);
    const [low, high] = [Math.min(...known), Math.max(...known)];
    const log = !linear && low > 0 && high / low >= 20;
    const scale = log ? Math.log : (value) => value;
    const place = (value) => (high === low ? 0.5 : (scale(value) - scale(low)) / (scale(high) - scale(low)));
    const distinct = [...new Set(known)].sort((a, b) => a - b);
    const few = [low, high, ...distinct.slice(1, -1)];
    const rounded = () => (log ? decades(low, high) : even(low, high, known.every(Number.isInteger)));
    const labelled = [...(known.includes(best) ? [best] : []), ...(distinct.length <= FEW ? few : rounded())];
    const ticks = apart(labelled.map((value) => [place(value), M.number(value), value === best]));
    return { title: log ? `${title} (log)` : title, place, ticks };
  }

  function worded(title, known) {
    const words = [...new Set(known.map(M.value))].sort((a, b) => a.localeCompare(b, "en", { numeric: true }));
    const place = (value) => (words.length < 2 ? 0.5 : words.indexOf(M.value(value)) / (words.length - 1));
    return { title, place, ticks: apart(words.map((word) => [place(word), word, false])) };
  }

  M.parallel = (pick) => {
    const drawing = M.svg("svg", { class: "parallel", role: "img" });
    const node = M.scroller("Axes of the parameters", drawing);
    let data = null;
    let width = 900;

    function draw() {
      if (!data) return;
      const { trials, varies, metric, best } = data;
      const along = (of) => trials.map(of);
      const axes = varies.map((name) => {
        const of = (trial) => trial.values[name];
        return { ...axisOf(name, along(of)), of };
      });
      const result = (trial) => trial.result;
      if (metric) axes.push({ ...axisOf(metric, along(result), { best, linear: true }), of: result, last: true });
      const { full, x, rows } = across(axes.map((axis) => axis.title));
      const y = (share) => HEIGHT - FOOT - share * (HEIGHT - TOP - FOOT);
      drawing.setAttribute("viewBox", `0 0 ${full} ${HEIGHT}`);
      drawing.setAttribute("width", full);
      drawing.setAttribute("height", HEIGHT);
      drawing.setAttribute(
        "aria-label",
        `${M.plural(trials.length, "trial")} over ${axes.map((axis) => axis.title).join(", ")}; the table above says the same`,
      );
      drawing.replaceChildren(
        ...[...trials].reverse().map((trial) => line(trial, axes, x, y)),
        ...axes.flatMap((axis, i) => [
          M.svg("path", { class: `axis ${axis.last ? "last" : ""}`, d: `M${x(i)} ${TOP - 8}V${HEIGHT - FOOT + 8}` }),
          M.svg("text", { class: "axisname", x: x(i), y: i % rows ? 13 : 28, "text-anchor": "middle" }, axis.title),
          ...axis.ticks.map(([at, text, isBest]) =>
            M.svg("text", { class: `tickname ${isBest ? "best" : ""}`, x: x(i) + 7, y: y(at) + 4 }, text),
          ),
        ]),
      );
    }

    /** Where the axes stand: no name leaves the drawing or meets its neighbour, in two rows where one is too narrow. */
    function across(names) {
      const half = names.map((name) => (name.length * LETTER) / 2);
      const [left, right] = [Math.max(20, half[0] ?? 0), Math.max(64, half.at(-1) ?? 0)];
      const gaps = names.length - 1;
      const need = (by) =>
        half.reduce((most, own, i) => (i < by ? most : Math.max(most, (own + half[i - by] + 14) / by)), LEAST);
      const rows = left + right + need(1) * gaps <= width ? 1 : 2;
      const full = Math.max(width, left + right + need(rows) * gaps);
      return { full, rows, x: (i) => (gaps ? left + (i / gaps) * (full - left - right) : full / 2) };
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
    node.update = (next) => ((data = { ...next, picked: data?.picked }), draw());
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
