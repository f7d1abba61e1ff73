/* The drawing of the lanes: a module each, along time; marks for versions, lines to the versions they were trained
   against, workers and waits. Picking and zooming are in laneview.js. */
"use strict";
(() => {
  const M = window.modtrain;
  const LANE = 74;
  const BAND = 22;
  const TOP = 8;
  const FOOT = 24;
  const SIDE = 14;
  const MOST_MARKS = 350;
  const LINE_PX = 3;
  const CLEAR_PX = 9;
  const STEPS = [
    1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 21600, 43200, 86400, 172800, 604800, 2592000,
  ];

  const pad = (n) => String(n).padStart(2, "0");
  function tick(t, step) {
    const d = new Date(t * 1000);
    if (step >= 86400) return d.toLocaleDateString("en-GB", { day: "numeric", month: "short" });
    const clock = `${pad(d.getHours())}:${pad(d.getMinutes())}`;
    if (step < 60) return `${clock}:${pad(d.getSeconds())}`;
    return d.getHours() + d.getMinutes() === 0
      ? d.toLocaleDateString("en-GB", { day: "numeric", month: "short" })
      : clock;
  }

  M.laneOf = (lanes, module) => lanes.find((lane) => lane.module === module);
  M.versionOf = (lanes, module, version) => M.laneOf(lanes, module)?.versions.find((v) => v.version === version);

  const where = (worker) =>
    [worker.host, worker.job ? `job ${worker.job}` : null, worker.pid ? `process ${worker.pid}` : null, worker.device]
      .filter(Boolean)
      .join(" · ");

  /** `draw(seen)` draws, and returns whether all versions fit; seen: {data, range, picked: {module, version} or null, width}. */
  M.laneDrawing = () => {
    const svg = M.svg("svg", { class: "lanes", role: "img", focusable: "false" });
    let { data, range, picked, width } = { data: { lanes: [], at: 0 }, range: [0, 1], picked: null, width: 900 };

    const x = (t) => SIDE + ((t - range[0]) / (range[1] - range[0])) * (width - 2 * SIDE);
    const time = (px) => range[0] + ((px - SIDE) / (width - 2 * SIDE)) * (range[1] - range[0]);
    const y = (i) => TOP + i * LANE + 46;

    /** One of each stretch of so many, a power of two: then the same ones stay as a lane grows. */
    const some = (versions, most) => {
      if (most < 1) return [];
      const every = 2 ** Math.max(0, Math.ceil(Math.log2(versions.length / most)));
      return versions.filter((_, n) => n % every === 0);
    };

    /** The versions to draw: all that fit, else the newest, the last and the picked one, ends of epochs, and some others. */
    function marksOf(lane) {
      const inside = lane.versions.filter((v) => v.at >= range[0] && v.at <= range[1]);
      if (inside.length <= MOST_MARKS) return inside;
      const kept = (v, n) => v.final || n === inside.length - 1 || isPicked(lane.module, v.version);
      const drawn = new Set(inside.filter(kept));
      for (const wanted of [inside.filter((v) => v.full), inside])
        for (const v of some(
          wanted.filter((one) => !drawn.has(one)),
          MOST_MARKS - drawn.size,
        ))
          drawn.add(v);
      return inside.filter((v) => drawn.has(v));
    }

    /** What these versions of each lane were trained against. */
    const linksOf = (versions) =>
      data.lanes.flatMap((lane, i) =>
        versions[i].flatMap((v) =>
          Object.entries(v.peers ?? {}).flatMap(([peer, numbers]) => {
            const j = data.lanes.findIndex((other) => other.module === peer);
            return j < 0 ? [] : numbers.map((number, nth) => ({ i, j, v, number, nth, peer, module: lane.module }));
          }),
        ),
      );

    const isPicked = (module, version) => picked?.module === module && picked.version === version;
    const touches = (l) => isPicked(l.module, l.v.version) || isPicked(l.peer, l.number);

    /** The more lines, the fainter each; those of the picked version are all there, and strong. */
    function links(marks) {
      const newest = linksOf(marks).filter((l) => l.nth === 0 && !touches(l));
      const every = Math.ceil(newest.length / (width / LINE_PX));
      const drawn = newest.filter((_, n) => n % every === 0);
      const strong = picked ? linksOf(data.lanes.map((lane) => lane.versions)).filter(touches) : [];
      const group = M.svg("g", { class: "links" }, drawn.map(link), strong.map(link));
      group.style.setProperty("--faint", Math.min(1, width / drawn.length / CLEAR_PX).toFixed(2));
      return group;
    }

    function link(l) {
      const source = M.versionOf(data.lanes, l.peer, l.number);
      if (!source) return null;
      const [x1, y1, x2, y2] = [x(source.at), y(l.j), x(l.v.at), y(l.i)];
      const bend = (y2 - y1) * 0.5;
      const strength = touches(l) ? "strong" : picked ? "faint" : "";
      return M.svg("path", {
        class: `link m${M.place(l.peer)} ${strength}`,
        d: `M${x1} ${y1}C${x1} ${y1 + bend} ${x2} ${y2 - bend} ${x2} ${y2}`,
      });
    }

    function workers(lane, i) {
      return lane.workers.flatMap((worker, n) => {
        const [from, to] = [Math.max(x(worker.from), 0), Math.min(x(worker.to ?? data.at), width)];
        if (to < 0 || from > width) return [];
        const again = n > 0;
        const text = `${again ? "↻ " : ""}${worker.host ?? ""}${worker.job ? ` · ${worker.job}` : ""}`;
        const title = M.svg(
          "title",
          {},
          `${again ? "Restarted on" : "On"} ${where(worker)}${worker.end ? `; ${worker.end}` : ""}`,
        );
        return [
          M.svg(
            "rect",
            {
              class: `life ${worker.to ? "" : "open"}`,
              x: from,
              y: y(i) - BAND / 2,
              width: Math.max(to - from, 2),
              height: BAND,
              rx: 4,
            },
            title,
          ),
          again ? M.svg("path", { class: "restart", d: `M${from} ${y(i) - BAND / 2 - 4}v${BAND + 8}` }) : null,
          to - from > 7 * text.length + 8
            ? M.svg("text", { class: "host", x: from + 5, y: y(i) + BAND / 2 + 13 }, text)
            : null,
        ].filter(Boolean);
      });
    }

    /** A cross where a worker died, over everything else. */
    const endings = (lane, i) =>
      lane.workers
        .filter((worker) => worker.to && ["lost", "failed"].includes(worker.end))
        .map((worker) =>
          M.svg(
            "path",
            { class: "ending", d: `M${x(worker.to) - 4} ${y(i) - 4}l8 8m0-8l-8 8` },
            M.svg("title", {}, `${worker.end} on ${where(worker)}`),
          ),
        );

    /** A line where a lane enters a stage, with its name where there is room for it. */
    const stages = (lane, i) =>
      lane.stages.flatMap(({ name, at }, n) => {
        const [from, to] = [x(at), n + 1 < lane.stages.length ? x(lane.stages[n + 1].at) : width];
        if (from < 0 || from > width) return [];
        return [
          M.svg(
            "path",
            { class: "stageline", d: `M${from} ${y(i) - BAND / 2 - 11}V${y(i) + BAND / 2}` },
            M.svg("title", {}, `stage ${name}`),
          ),
          to - from > 6 * name.length + 6
            ? M.svg("text", { class: "stagename", x: from + 3, y: y(i) - BAND / 2 - 3 }, name)
            : null,
        ].filter(Boolean);
      });

    const waits = (lane, i) =>
      lane.waits
        .map((w) => ({ ...w, to: w.to ?? data.at, open: w.to === null }))
        .filter((w) => w.to >= range[0] && w.from <= range[1])
        .map((w) =>
          M.svg(
            "rect",
            {
              class: `wait ${w.open ? "open" : ""}`,
              x: x(w.from),
              y: y(i) - BAND / 2,
              width: Math.max(x(w.to) - x(w.from), 1.5),
              height: BAND,
            },
            M.svg("title", {}, `${w.open ? "has waited" : "waited"} ${M.duration(w.to - w.from)} for ${w.for}`),
          ),
        );

    function mark(lane, i, v, dense, present) {
      const scale = v.final ? 1.25 : dense * (v.full ? 1 : 0.62);
      const is = picked?.module === lane.module && picked.version === v.version;
      return M.svg("path", {
        class: `version ${v.full ? "" : "small"} ${present.has(v.version) ? "" : "gone"} ${is ? "is" : ""} ${v.final ? "final" : ""}`,
        d: M.mark(lane.module),
        transform: `translate(${x(v.at)} ${y(i)}) scale(${is ? scale + 0.35 : scale})`,
      });
    }

    function marksIn(lane, i, versions) {
      const dense = Math.min(1, Math.max(0.4, width / versions.length / 11));
      const present = new Set(lane.present);
      return versions.map((v) => mark(lane, i, v, dense, present));
    }

    function axis() {
      const [from, to] = range;
      const step =
        STEPS.find((s) => (to - from) / s <= Math.max(2, width / 110)) ?? (to - from) / Math.max(2, width / 110);
      const offset = new Date(from * 1000).getTimezoneOffset() * 60;
      const bottom = TOP + data.lanes.length * LANE;
      const ticks = [];
      for (let t = Math.ceil((from - offset) / step) * step + offset; t <= to; t += step)
        ticks.push(
          M.svg("path", { class: "tick", d: `M${x(t)} ${TOP}V${bottom}` }),
          M.svg("text", { class: "time", x: Math.min(Math.max(x(t), 24), width - 24), y: bottom + 16 }, tick(t, step)),
        );
      return ticks;
    }

    function draw(seen) {
      ({ data, range, picked, width } = seen);
      const height = TOP + data.lanes.length * LANE + FOOT;
      svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
      svg.setAttribute("height", height);
      const marks = data.lanes.map(marksOf);
      const count = data.lanes.reduce((sum, lane) => sum + lane.versions.length, 0);
      svg.setAttribute("aria-label", `${M.plural(data.lanes.length, "module")}, ${M.plural(count, "version")}`);
      svg.dataset.versions = count;
      svg.replaceChildren(
        hatch(),
        ...axis(),
        ...data.lanes.map((lane, i) =>
          M.svg(
            "g",
            { class: `m${M.place(lane.module)}` },
            M.svg("path", { class: "ground", d: `M0 ${y(i)}H${width}` }),
            workers(lane, i),
            stages(lane, i),
            waits(lane, i),
          ),
        ),
        links(marks),
        ...data.lanes.map((lane, i) =>
          M.svg(
            "g",
            { class: `m${M.place(lane.module)}`, "data-module": lane.module },
            marksIn(lane, i, marks[i]),
            endings(lane, i),
            label(lane, i),
          ),
        ),
      );
      const inside = ({ at }) => at >= range[0] && at <= range[1];
      return data.lanes.every((lane, i) => marks[i].length === lane.versions.filter(inside).length);
    }

    function label(lane, i) {
      const last = lane.versions.at(-1);
      const state = data.states?.[lane.module];
      return M.svg(
        "text",
        { class: "lanename", x: 2, y: TOP + i * LANE + 20 },
        lane.module,
        M.svg(
          "tspan",
          { class: "lanestate" },
          `   ${last ? `v${last.version}` : "no version yet"}${state ? ` · ${state}` : ""}`,
        ),
      );
    }

    /** The mark nearest to a point, within a finger's width. */
    function nearest(event) {
      const box = svg.getBoundingClientRect();
      const [px, py] = [event.clientX - box.left, event.clientY - box.top];
      const i = Math.floor((py - TOP) / LANE);
      const lane = data.lanes[i];
      if (!lane) return null;
      const best = marksOf(lane).reduce(
        (a, v) => (!a || Math.abs(x(v.at) - px) < Math.abs(x(a.at) - px) ? v : a),
        null,
      );
      return best && Math.abs(x(best.at) - px) < 14 ? { module: lane.module, version: best.version } : null;
    }

    const hatch = () =>
      M.svg(
        "defs",
        {},
        M.svg(
          "pattern",
          { id: "hatch", width: 6, height: 6, patternUnits: "userSpaceOnUse", patternTransform: "rotate(45)" },
          M.svg("path", { class: "hatching", d: "M1.5 0V6" }),
        ),
      );

    return { svg, draw, nearest, time };
  };
})();
