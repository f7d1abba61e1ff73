/* Shared by all pages: the header, states and modules as shape, colour and word, alarms, and the start. */
"use strict";
(() => {
  const M = window.modtrain;
  const { base, live, index, page, path } = document.body.dataset;
  Object.assign(M, { base, page, path, live: live === "true", address: page === "runs" ? "runs" : `${page}/${path}` });

  const end = (address) => `${address}${index}`;
  M.links = {
    runs: () => end(base) || "./",
    of: (row) => end(`${base}${row.kind ?? "run"}/${row.path}/`),
    run: (runPath) => end(`${base}run/${runPath}/`),
    sweep: (sweepPath) => end(`${base}sweep/${sweepPath}/`),
    checkpoint: (runPath, module, version) =>
      end(`${base}checkpoint/${runPath}/${encodeURIComponent(module)}/${version}/`),
    grid: (runPath, file) => `${base}grid/${runPath}/${encodeURIComponent(file)}`,
    weights: (runPath, module, version, file) =>
      `${base}weights/${runPath}/${encodeURIComponent(module)}/${version}/${encodeURIComponent(file)}`,
  };

  /** The last name of an address below ROOT. */
  M.called = (address) => {
    try {
      return decodeURIComponent(address).split("/").at(-1) || "sweep";
    } catch {
      return address;
    }
  };

  /** Descriptions by state, the most urgent state first. */
  M.states = JSON.parse(document.getElementById("states").textContent);

  /* State: a shape, a colour and a word. */
  const SHAPES = {
    running: "M4 8a4 4 0 1 1 8 0a4 4 0 1 1-8 0z",
    finished: "M3.2 8.4l3.2 3.2l6.4-7",
    failed: "M4 4l8 8M12 4l-8 8",
    lost: "M5.2 6a2.8 2.8 0 1 1 3.9 2.6c-.8.4-1.1.8-1.1 1.7M8 12.6v.1",
    stopped: "M4.5 4.5h7v7h-7z",
    waiting: "M8 2.8a5.2 5.2 0 1 0 0 10.4a5.2 5.2 0 1 0 0-10.4M8 5v3.2l2.2 1.6",
    pruned: "M3.5 8h9",
    broken: "M8 2.8l5.8 10.4h-11.6zM8 6.6v3M8 11.4v.1",
    search: "M7 2.8a4.2 4.2 0 1 0 0 8.4a4.2 4.2 0 1 0 0-8.4M10.2 10.2l3.4 3.4",
    sun: "M8 5.2a2.8 2.8 0 1 0 0 5.6a2.8 2.8 0 1 0 0-5.6M8 1.4v1.6M8 13v1.6M1.4 8h1.6M13 8h1.6M3.3 3.3l1.2 1.2M11.5 11.5l1.2 1.2M3.3 12.7l1.2-1.2M11.5 4.5l1.2-1.2",
    moon: "M13 9.6a5.6 5.6 0 0 1-6.6-6.6a5.6 5.6 0 1 0 6.6 6.6z",
    sweep: "M2.5 4h11M2.5 8h11M2.5 12h11M6 2.5v3M10.5 6.5v3M4.5 10.5v3",
  };
  const LIKE = {
    cancelled: "stopped",
    created: "waiting",
    preempted: "stopped",
    queued: "waiting",
    resting: "running",
    starting: "waiting",
  };

  M.icon = (name) =>
    M.svg(
      "svg",
      { class: `icon icon-${name}`, viewBox: "0 0 16 16", "aria-hidden": "true", focusable: "false" },
      M.svg("path", { d: SHAPES[name] ?? SHAPES.waiting }),
    );

  M.state = (state) => {
    const kind = LIKE[state] ?? (SHAPES[state] ? state : "waiting");
    return M.el("span", { class: `state state-${kind}`, title: M.states[state] }, M.icon(kind), state || "unknown");
  };

  /* A module: a shape, a colour, a dash, by its place in the run. */
  const MARKS = [
    "M-5 0a5 5 0 1 1 10 0a5 5 0 1 1-10 0z",
    "M-4.6-4.6h9.2v9.2h-9.2z",
    "M0-6.2L6.2 0L0 6.2L-6.2 0z",
    "M0-5.8L5.8 4.6H-5.8z",
    "M-2-6h4v4h4v4h-4v4h-4v-4h-4v-4h4z",
    "M0 5.8L5.8-4.6H-5.8z",
    "M-3-5.6h6l3 5.6l-3 5.6h-6l-3-5.6z",
  ];
  M.modules = [];
  /** Place of a module by its name, or by its number on the page of all runs. */
  M.place = (module) => (typeof module === "number" ? module : placeOf(module)) % MARKS.length;
  /* The evaluation comes after the modules. */
  const placeOf = (name) => (M.modules.includes(name) ? M.modules.indexOf(name) : M.modules.length);
  M.mark = (module) => MARKS[M.place(module)];
  M.glyph = (module) =>
    M.svg(
      "svg",
      { class: `glyph m${M.place(module)}`, viewBox: "-8 -8 16 16", "aria-hidden": "true" },
      M.svg("path", { d: M.mark(module) }),
    );
  M.module = (module) => M.el("span", { class: "module" }, M.glyph(module), M.name(module));

  M.progress = (share, label) => {
    const bar = M.el("span", { class: "bar" });
    bar.style.width = `${Math.min(100, Math.max(0, 100 * (share ?? 0)))}%`;
    return M.el(
      "span",
      { class: "progress", role: "img", "aria-label": label ?? `${Math.round(100 * (share ?? 0))} %` },
      bar,
    );
  };

  /** The trials of a sweep by state. */
  M.trialBar = (counts) => {
    const words = Object.entries(counts).filter(([, n]) => n > 0);
    return M.el(
      "span",
      { class: "progress trials", role: "img", "aria-label": words.map(([word, n]) => `${n} ${word}`).join(", ") },
      words.map(([word, n]) => {
        const piece = M.el("span", { class: `count-${LIKE[word] ?? word}`, title: `${n} ${word}` });
        piece.style.flexGrow = String(n);
        return piece;
      }),
    );
  };

  /** A sentence; text in backticks is a command. */
  M.sentence = (text) =>
    M.el(
      "bdi",
      {},
      text.split(/`([^`]+)`/).map((piece, n) => (n % 2 ? M.el("code", {}, piece) : piece)),
    );

  /** Alarms, the bad ones first, each with what to do; announced to screen readers. */
  M.alarms = () => {
    const list = M.el("ul");
    const node = M.el(
      "section",
      { class: "alarms", "aria-label": "Alarms", "aria-live": "polite", hidden: true },
      list,
    );
    node.update = (alarms) => {
      const sorted = [...alarms].sort((a, b) => (a.level !== "bad") - (b.level !== "bad"));
      M.keyed(
        list,
        sorted,
        (alarm) => JSON.stringify([alarm.level, alarm.module, alarm.says, alarm.do]),
        (alarm) =>
          M.el(
            "li",
            { class: `alarm alarm-${alarm.level}` },
            M.icon(alarm.level === "bad" ? "failed" : "broken"),
            M.el(
              "span",
              { class: "says" },
              M.el("span", { class: "unseen" }, alarm.level === "bad" ? "Bad: " : "Warning: "),
              M.name(alarm.says),
            ),
            alarm.do ? M.el("span", { class: "do" }, M.sentence(alarm.do)) : null,
          ),
      );
      node.hidden = alarms.length === 0;
    };
    return node;
  };

  M.problem = (says, todo) =>
    M.el(
      "p",
      { class: "alarm alarm-warn" },
      M.icon("broken"),
      M.el("span", { class: "says" }, M.name(says)),
      todo ? M.el("span", { class: "do" }, M.sentence(todo)) : null,
    );

  /** What to do about a run or sweep that cannot be read. */
  M.repair = () =>
    "Repair or restore the file named here, or remove the folder." + (M.live ? " This page then updates by itself." : "");

  /** Facts as a line: [[name, value], ...]. */
  M.facts = (pairs) =>
    M.el(
      "dl",
      { class: "facts" },
      pairs
        .filter(([, value]) => value !== null && value !== undefined && value !== "")
        .map(([name, value]) => M.el("div", {}, M.el("dt", {}, name), M.el("dd", {}, value))),
    );

  function themeButton() {
    const draw = () => {
      const other = M.theme() === "dark" ? "light" : "dark";
      button.replaceChildren(M.icon(other === "dark" ? "moon" : "sun"));
      button.setAttribute("aria-label", `Show it ${other}`);
      button.title = `Show it ${other}`;
    };
    const button = M.el("button", { type: "button", class: "plain", onclick: () => M.otherTheme() });
    document.addEventListener("modtrain-theme", draw);
    draw();
    return button;
  }

  const CONNECTION = {
    live: "live",
    paused: "paused",
    away: "no answer",
    gone: "no longer exists",
  };

  function connection() {
    const word = M.el("span", { class: "word" });
    const node = M.el(
      "span",
      { class: "live", role: "status" },
      M.el("span", { class: "dot", "aria-hidden": "true" }),
      word,
    );
    node.show = (state, reached, error) => {
      node.dataset.state = state;
      const since = state === "away" ? ` since ${M.when(reached / 1000)}` : "";
      M.say(word, (CONNECTION[state] ?? state) + since);
      node.title = error ? String(error.message ?? error) : "";
    };
    return node;
  }

  /** Draws a page from its data; data that cannot be drawn is reported, and the next may be drawn again. */
  function drawing(build) {
    const main = document.getElementById("main");
    const trouble = M.el("div", { class: "trouble", role: "alert" });
    let update = null;
    let gone = false;
    const draw = (data) => {
      try {
        if (!update) {
          const [nodes, next] = build(data);
          update = next;
          main.replaceChildren(trouble, ...nodes);
        }
        update(data);
        trouble.replaceChildren();
      } catch (error) {
        console.error(error);
        if (!trouble.isConnected) main.replaceChildren(trouble);
        const why = error.message ?? error;
        const says = `This page could not be drawn: ${why}. What it shows may be old.`;
        trouble.replaceChildren(M.problem(says));
      }
    };
    /** Report since when the page no longer exists; null withdraws that. */
    draw.gone = (since) => {
      if (gone === (since !== null)) return;
      gone = !gone;
      const says = `This ${page} no longer exists. It is shown as of ${M.when(since / 1000)}.`;
      trouble.replaceChildren(...(gone ? [M.problem(says)] : []));
    };
    return draw;
  }

  /** Draw a page from its data and keep it up to date. `build(data)` gives [nodes, update(data)]; crumbs: [[text, href], ...]. */
  M.start = (crumbs, build) => {
    const data = JSON.parse(document.getElementById("data").textContent);
    M.setClock(data.at);
    const status = connection();
    const trail = [["runs", M.links.runs()], ...crumbs(data)];
    document.getElementById("top").append(
      M.el("a", { class: "brand", href: M.links.runs() }, "modtrain"),
      M.el(
        "nav",
        { "aria-label": "Breadcrumbs" },
        M.el(
          "ol",
          { class: "crumbs" },
          trail.map(([text, href], i) =>
            M.el(
              "li",
              {},
              i < trail.length - 1 ? M.el("a", { href }, M.name(text)) : M.name(text, { "aria-current": "page" }),
            ),
          ),
        ),
      ),
      M.el("span", { class: "gap" }),
      status,
      themeButton(),
    );
    const draw = drawing(build);
    const follows = (state, reached, error) => {
      status.show(state, reached, error);
      draw.gone(state === "gone" ? reached : null);
      M.titleTrouble(["away", "gone"].includes(state) ? CONNECTION[state] : "");
    };
    draw(data);
    if (M.live && page === "checkpoint") status.hidden = true; /* a checkpoint never changes */
    else if (M.live) {
      status.show("live");
      M.follow(M.address, draw, follows);
    } else status.show(`as of ${M.moment(data.at)}`);
  };
})();
