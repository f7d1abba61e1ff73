/* Sample grids with a slider over versions, and the results of the evaluations. */
"use strict";
(() => {
  const M = window.modtrain;
  const TALLEST = 460;

  const versionsOf = (line) =>
    Object.entries(line?.versions ?? {}).map(([module, version]) => [M.module(module), ` v${version}`]);
  const epochOf = (line) => {
    const epochs = Object.values(line?.epochs ?? {});
    return epochs.length ? Math.min(...epochs) : null;
  };

  /** The sample grid of one evaluation; the slider stays where it was put, and follows the newest while it is at the end. */
  M.samples = (runPath) => {
    const image = M.el("img", { class: "grid", alt: "", decoding: "async", onload: () => fit() });
    const link = M.el("a", { class: "gridlink", title: "Open the picture" }, image);
    const slider = M.el("input", {
      type: "range",
      min: 0,
      max: 0,
      step: 1,
      value: 0,
      id: "grid-slider",
      "aria-label": "Version of the sample grid",
    });
    const caption = M.el("p", { class: "caption", role: "status" });
    const step = (by, label, text) =>
      M.el(
        "button",
        {
          type: "button",
          "aria-label": label,
          title: label,
          onclick: () => ((slider.value = Number(slider.value) + by), draw()),
        },
        text,
      );
    const bar = M.el(
      "div",
      { class: "slide" },
      step(-1, "The grid before", "‹"),
      slider,
      step(1, "The next grid", "›"),
    );
    const nothing = M.el("p", { class: "note" });
    const node = M.el("div", { class: "samples" }, nothing, link, bar, caption);
    let grids = [];
    let drawn = 0; /* how many there are, some of which may not be here */

    /* As wide as there is room, no higher than the screen, and no wider than the picture itself is then. */
    function fit() {
      image.style.aspectRatio = `${image.naturalWidth} / ${image.naturalHeight}`;
      image.style.width = `min(100%, ${Math.round((TALLEST * image.naturalWidth) / image.naturalHeight)}px)`;
    }

    function draw() {
      const at = Number(slider.value);
      const grid = grids[at];
      if (!grid) return;
      /* A repeated evaluation replaces the picture under the same name. */
      const again = M.live && Number.isFinite(grid.at) ? `?at=${grid.at}` : "";
      const address = M.links.grid(runPath, grid.file) + again;
      if (image.getAttribute("src") !== address) {
        image.src = address;
        link.href = address;
      }
      const epoch = epochOf(grid);
      const words = `${epoch === null ? "" : `epoch ${epoch}, `}${at + 1} of ${grids.length}`;
      slider.setAttribute("aria-valuetext", words);
      image.alt = `Sample grid of ${words}`;
      M.fresh(caption, [grid, at, grids.length, drawn], () => [
        M.el(
          "span",
          {},
          M.el("b", {}, epoch === null ? "" : `epoch ${epoch}`),
          at === grids.length - 1 ? " · newest" : ` · ${at + 1} of ${grids.length}`,
          drawn > grids.length ? ` (${grids.length} of the ${M.number(drawn)} grids are here)` : "",
        ),
        " ",
        M.el(
          "span",
          { class: "muted" },
          versionsOf(grid).map((parts, n) => [n ? ", " : "", parts]),
        ),
      ]);
    }

    slider.addEventListener("input", draw);
    node.update = (next, all, draws) => {
      drawn = all;
      M.fresh(nothing, draws, () =>
        draws
          ? ["No sample grid yet; ", M.el("code", {}, "modtrain evaluate RUN"), " draws one."]
          : "This recipe draws no grid.",
      );
      const newest = Number(slider.value) >= grids.length - 1;
      grids = next;
      slider.max = Math.max(0, grids.length - 1);
      if (newest) slider.value = slider.max;
      nothing.hidden = grids.length > 0;
      link.hidden = grids.length === 0;
      bar.hidden = grids.length < 2;
      caption.hidden = grids.length === 0;
      draw();
    };
    return node;
  };

  function spark(values) {
    const known = values.map((value, i) => [i, value]).filter(([, value]) => Number.isFinite(value));
    if (known.length < 2) return null;
    const numbers = known.map(([, value]) => value);
    const [low, high] = [Math.min(...numbers), Math.max(...numbers)];
    const [x, y] = [(i) => 2 + (i / (values.length - 1)) * 96, (v) => 22 - ((v - low) / (high - low || 1)) * 18];
    const last = known.at(-1);
    return M.svg(
      "svg",
      { class: "spark", viewBox: "0 0 100 26", "aria-hidden": "true" },
      M.svg("path", { d: known.map(([i, v], n) => `${n ? "L" : "M"}${x(i).toFixed(1)} ${y(v).toFixed(1)}`).join("") }),
      M.svg("circle", { cx: x(last[0]), cy: y(last[1]), r: 2.4 }),
    );
  }

  /** The newest evaluation: each metric now, before and over time. */
  M.evaluation = () => {
    const about = M.el("p", { class: "about" });
    const nothing = M.el(
      "p",
      { class: "note" },
      "Not evaluated yet; ",
      M.el("code", {}, "modtrain evaluate RUN"),
      " evaluates the newest checkpoints.",
    );
    const columns = [
      { title: "Metric", head: true, of: (row) => row.name, show: (name) => M.name(name) },
      { title: "Newest", class: "num", of: (row) => row.now, show: (value) => M.el("b", {}, M.number(value)) },
      {
        title: "Change",
        class: "num",
        of: (row) => row.change,
        show: (value) => (value === null ? "–" : `${value >= 0 ? "+" : "−"}${M.number(Math.abs(value))}`),
      },
      {
        title: "Range",
        class: "num",
        of: (row) => [row.low, row.high],
        show: ([low, high]) => (low < high ? `${M.number(low)} – ${M.number(high)}` : "–"),
      },
      { title: "Over time", of: (row) => row.values, show: (values) => spark(values) ?? "" },
    ];
    const table = M.table(columns, { key: (row) => row.name, label: "Newest evaluation", text: (row) => row.name });
    const node = M.el("div", {}, about, nothing, table.node);
    node.update = (lines) => {
      const last = lines.at(-1);
      nothing.hidden = !!last;
      about.hidden = table.node.hidden = !last;
      if (!last) return;
      table.node.classList.toggle("once", lines.length < 2);
      M.fresh(about, last, () => [
        `Of epoch ${epochOf(last) ?? "?"}, ${M.moment(last.at)}: `,
        versionsOf(last).map((parts, n) => [n ? ", " : "", parts]),
      ]);
      table.update(
        Object.keys(last.metrics ?? {}).map((name) => {
          const values = lines.map((line) => line.metrics?.[name] ?? null);
          const known = values.filter((value) => Number.isFinite(value));
          const [now, before] = [known.at(-1) ?? null, known.at(-2)];
          return {
            name,
            now: last.metrics[name],
            change: before === undefined || last.metrics[name] === null ? null : now - before,
            low: Math.min(...known),
            high: Math.max(...known),
            values: values.slice(-200),
          };
        }),
      );
    };
    return node;
  };
})();
