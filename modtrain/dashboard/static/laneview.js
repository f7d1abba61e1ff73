/* The lanes in a page: zoom, drag, arrow keys and clicks; updates keep the picked version and the zoom. */
"use strict";
(() => {
  const M = window.modtrain;

  /** The times of all that is shown: [from, to]. */
  function extent(lanes, at) {
    const times = lanes
      .flatMap((lane) => [
        ...lane.versions.map((v) => v.at),
        ...lane.workers.flatMap((l) => [l.from, l.to ?? at]),
        ...lane.waits.flatMap((w) => [w.from, w.to ?? at]),
      ])
      .filter((t) => Number.isFinite(t) && t > 0);
    if (!times.length) return [at - 60, at];
    const [from, to] = [times.reduce((a, b) => Math.min(a, b)), times.reduce((a, b) => Math.max(a, b))];
    return [from, Math.max(to, from + 1)];
  }

  M.lanes = (runPath) => {
    const drawing = M.laneDrawing();
    const caption = M.laneCaption(runPath);
    const view = M.el(
      "div",
      {
        class: "laneview",
        tabindex: "0",
        role: "group",
        "aria-label":
          "Lanes. Left and right go through versions, up and down through modules, plus and minus zoom, Enter opens the checkpoint.",
      },
      drawing.svg,
    );
    const buttons = M.el("div", { class: "buttons", role: "group", "aria-label": "Zoom of the lanes" });
    const more = M.laneRange(runPath, () => draw());
    const node = M.el("div", {}, view, more.node, M.el("div", { class: "lanefoot" }, caption, buttons), M.laneKey());
    let sent = { lanes: [], at: 0, pages: null };
    let data = sent; /* what was sent with the page, and what was loaded of the range that is shown */
    let all = [0, 1];
    let shown = null; /* null: everything, also later versions */
    let picked = null;
    let width = 900;
    let drag = null;
    let tallest = 0;

    const button = (text, label, action) =>
      M.el("button", { type: "button", "aria-label": label, title: label, onclick: action }, text);
    buttons.append(
      button("−", "Zoom out", () => zoom(1.6)),
      button("+", "Zoom in", () => zoom(1 / 1.6)),
      button("all", "Show all of the time", () => ((shown = null), draw())),
    );

    const range = () => shown ?? all;
    const version = (pick) => M.versionOf(data.lanes, pick.module, pick.version);

    function draw() {
      data = { ...sent, lanes: more.fill(sent.lanes, shown) };
      more.say(sent.lanes, shown, drawing.draw({ data, range: range(), picked, width }));
      caption.show(data, picked);
      /* The newest version changes all the time: the height stays, so that nothing below moves. */
      if (!picked) caption.style.minHeight = `${(tallest = Math.max(tallest, caption.offsetHeight))}px`;
    }

    function zoom(factor, around) {
      const [from, to] = range();
      const middle = around ?? (picked ? version(picked)?.at : null) ?? (from + to) / 2;
      const size = Math.min(Math.max((to - from) * factor, 2), all[1] - all[0]);
      const begin = middle - ((middle - from) / (to - from)) * size;
      move(begin, begin + size);
    }

    function move(from, to) {
      const size = to - from;
      const begin = Math.min(Math.max(from, all[0]), all[1] - size);
      shown = size >= all[1] - all[0] - 1e-6 ? null : [begin, begin + size];
      draw();
    }

    function pick(module, number) {
      picked = number === undefined ? null : { module, version: number };
      const at = picked && version(picked)?.at;
      const [from, to] = range();
      if (at && shown && (at < from || at > to)) return move(at - (to - from) / 2, at + (to - from) / 2);
      draw();
    }

    function keys(event) {
      if (event.ctrlKey || event.metaKey || event.altKey || !data.lanes.length) return;
      const i = Math.max(
        0,
        data.lanes.findIndex((lane) => lane.module === picked?.module),
      );
      const go = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
      const jump = { ArrowUp: -1, ArrowDown: 1 }[event.key];
      const lane = data.lanes[i];
      if (go && lane.versions.length) {
        const at = picked
          ? lane.versions.findIndex((v) => v.version === picked.version)
          : lane.versions.length - (go > 0 ? 1 : 0);
        pick(lane.module, lane.versions[Math.min(Math.max(at + go, 0), lane.versions.length - 1)].version);
      } else if (jump) {
        const other = data.lanes[Math.min(Math.max(i + (picked ? jump : 0), 0), data.lanes.length - 1)];
        const at = (picked && version(picked)?.at) ?? all[1];
        const near = other.versions.reduce((a, v) => (!a || Math.abs(v.at - at) < Math.abs(a.at - at) ? v : a), null);
        if (near) pick(other.module, near.version);
      } else if (event.key === "+" || event.key === "=") zoom(1 / 1.6);
      else if (event.key === "-") zoom(1.6);
      else if (event.key === "Escape" && picked) pick(null);
      else if (event.key === "Enter" && picked) caption.querySelector("a")?.click();
      else return;
      event.preventDefault();
    }

    view.addEventListener("keydown", keys);
    view.addEventListener("pointerdown", (event) => (drag = { px: event.clientX, range: [...range()], moved: false }));
    view.addEventListener("pointermove", (event) => {
      if (!drag) return void view.classList.toggle("over", !!drawing.nearest(event));
      const by = event.clientX - drag.px;
      if (Math.abs(by) > 4) drag.moved = true;
      if (drag.moved && shown) move(...drag.range.map((t) => t - (by / width) * (drag.range[1] - drag.range[0])));
    });
    addEventListener("pointerup", (event) => {
      if (!drag) return;
      const picks = !drag.moved && view.contains(event.target);
      drag = null;
      if (!picks) return draw();
      const mark = drawing.nearest(event);
      pick(mark?.module, mark?.version);
    });
    /* The browser has taken the pointer, to scroll. */
    addEventListener("pointercancel", () => {
      if (!drag) return;
      drag = null;
      draw();
    });
    view.addEventListener(
      "wheel",
      (event) => {
        if (!event.ctrlKey && !event.metaKey) return;
        event.preventDefault();
        zoom(event.deltaY > 0 ? 1.25 : 0.8, drawing.time(event.clientX - drawing.svg.getBoundingClientRect().left));
      },
      { passive: false },
    );
    new ResizeObserver(([entry]) => {
      width = Math.max(280, Math.round(entry.contentRect.width));
      tallest = 0;
      caption.style.minHeight = "0";
      draw();
    }).observe(view);

    node.update = (next) => {
      data = sent = next;
      all = extent(data.lanes, data.at);
      if (shown && shown[1] > all[1] + 1) shown = null;
      if (!drag) draw();
    };
    return node;
  };
})();
