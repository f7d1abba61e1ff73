/* The page of all runs and sweeps. */
"use strict";
(() => {
  const M = window.modtrain;
  const RANK = ["broken", ...Object.keys(M.states)];
  const kindOf = (row) => (row.problem ? "broken" : row.state);

  /** By the newest version of any module, newest first. */
  function byNewest(row) {
    const times = (row.modules ?? []).map((module) => module.newest_at).filter(Number.isFinite);
    return times.length ? -Math.max(...times) : null;
  }

  function nameCell([name, recipe, , kind], row) {
    const inside = M.el(
      "span",
      { class: "what" },
      kind === "sweep" ? [M.icon("sweep"), " sweep of "] : null,
      recipe ? M.name(String(recipe).split("/").at(-1), { title: recipe }) : kind,
    );
    const place = decodePath(row.path).replace(/\/?[^/]*$/, "");
    return [
      M.el("a", { class: "rowname", href: M.links.of(row) }, M.name(name || "(without a name)")),
      inside,
      place && place !== row.path ? M.el("span", { class: "what" }, " in ", M.name(place)) : null,
    ];
  }

  function decodePath(path) {
    try {
      return decodeURIComponent(path);
    } catch {
      return path;
    }
  }

  function progressCell([share, epoch, epochs, left, counts, problem, state, stage], row) {
    if (problem) return M.el("span", { class: "muted" }, "–");
    if (row.kind === "sweep")
      return [
        M.trialBar(counts ?? {}),
        M.el(
          "span",
          { class: "under" },
          Object.entries(counts ?? {})
            .filter(([, n]) => n)
            .map(([word, n]) => `${n} ${word}`)
            .join(" · "),
        ),
      ];
    const text = `epoch ${epoch ?? 0} of ${epochs ?? "?"}`;
    return [
      M.progress(share, text),
      M.el(
        "span",
        { class: "under" },
        text,
        stage && state !== "finished" ? [" · ", M.name(stage)] : "",
        left && state === "running" ? ` · ${M.duration(left)} left` : "",
      ),
    ];
  }

  function modulesCell(modules, row) {
    if (row.kind === "sweep") return M.el("span", { class: "muted" }, M.plural(row.trials ?? 0, "trial"));
    return M.el(
      "ul",
      { class: "mods" },
      (modules ?? []).map((module, i) => {
        const odd = ["lost", "failed", "waiting"].includes(module.state) ? M.state(module.state) : null;
        return M.el(
          "li",
          {},
          M.glyph(i),
          M.name(module.name),
          M.el("span", { class: "v" }, module.version === null ? "nothing yet" : `v${module.version}`),
          M.age(module.newest_at, { none: "" }),
          odd,
        );
      }),
    );
  }

  function metricCell(metric) {
    if (!metric) return M.el("span", { class: "muted" }, "–");
    return [
      M.el("span", { class: "big" }, M.number(metric.value)),
      M.el(
        "span",
        { class: "under" },
        M.name(metric.name),
        metric.trial === undefined || metric.trial === null ? "" : ` · trial ${metric.trial}`,
      ),
    ];
  }

  function alarmsCell([alarms, problem]) {
    const every = problem ? [{ level: "warn", says: problem }, ...(alarms ?? [])] : (alarms ?? []);
    const all = every.filter((alarm, i) => every.findIndex((other) => other.says === alarm.says) === i);
    if (!all.length) return M.el("span", { class: "muted" }, "none");
    return M.el(
      "ul",
      { class: "alarmlist" },
      all
        .slice(0, 3)
        .map((alarm) =>
          M.el(
            "li",
            { class: `alarm-${alarm.level}`, title: alarm.do ?? null },
            M.icon(alarm.level === "bad" ? "failed" : "broken"),
            M.name(alarm.says),
          ),
        ),
      all.length > 3 ? M.el("li", { class: "muted" }, `and ${all.length - 3} more`) : null,
    );
  }

  /** How many need attention, and how many train. */
  const urgent = (rows) =>
    ["broken", "failed", "lost", "running"]
      .map((kind) => [rows.filter((row) => kindOf(row) === kind).length, kind])
      .filter(([count]) => count > 0)
      .map((pair) => pair.join(" "))
      .join(", ");

  const rank = (row) => RANK.indexOf(kindOf(row));
  const troubles = (row) =>
    (row.problem ? 1 : 0) + (row.alarms ?? []).reduce((sum, alarm) => sum + (alarm.level === "bad" ? 100 : 1), 0);

  const COLUMNS = [
    {
      title: "Name",
      head: true,
      class: "c-name",
      of: (row) => [row.name, row.recipe, row.path, row.kind],
      show: nameCell,
      sort: (row) => row.name,
    },
    { title: "State", class: "c-state", of: kindOf, show: M.state, sort: rank },
    {
      title: "Best metric",
      class: "c-metric num",
      of: (row) => row.metric ?? null,
      show: metricCell,
      sort: (row) => row.metric?.value ?? null,
      first: "descending",
    },
    {
      title: "Alarms",
      class: "c-alarms",
      of: (row) => [row.alarms, row.problem],
      show: alarmsCell,
      sort: troubles,
      first: "descending",
    },
    {
      title: "Progress",
      class: "c-progress",
      of: (row) => [row.progress, row.epoch, row.epochs, row.left_s, row.counts, !!row.problem, row.state, row.stage],
      show: progressCell,
      sort: (row) => (row.problem ? null : row.progress),
      first: "descending",
    },
    { title: "Last checkpoints", class: "c-mods", of: (row) => row.modules ?? null, show: modulesCell, sort: byNewest },
    {
      title: "Created",
      class: "c-when num",
      of: (row) => row.created_at,
      show: (at) => M.el("span", { title: M.moment(at) }, M.when(at)),
      sort: (row) => row.created_at || null,
      first: "descending",
    },
  ];

  const text = (row) =>
    [
      row.name,
      row.recipe,
      kindOf(row),
      row.kind,
      decodePath(row.path),
      row.metric?.name,
      row.problem,
      ...(row.modules ?? []).map((m) => `${m.name} ${m.state}`),
      ...(row.alarms ?? []).map((a) => a.says),
    ].join(" ");

  function build() {
    let only = null;
    let all = [];
    const count = M.el("span", { class: "muted count", role: "status" });
    const chips = M.el("div", { class: "chips", role: "group", "aria-label": "Show only" });
    const table = M.table(COLUMNS, {
      key: (row) => `${row.kind}/${row.path}`,
      label: "Runs and sweeps",
      sortBy: "Created",
      down: true,
      text,
      cards: "runs",
      only: (row) => !only || kindOf(row) === only,
      nothing: "No run matches.",
      count: (shown, of) =>
        M.say(count, shown === of ? M.plural(of, "run or sweep", "runs and sweeps") : `${shown} of ${of}`),
      mark: (tr, row) =>
        tr.classList.toggle("odd", !!row.problem || (row.alarms ?? []).some((alarm) => alarm.level === "bad")),
    });
    const title = M.el("h1");
    const empty = M.el(
      "p",
      { class: "card note", hidden: true },
      "There is no run here yet. ",
      M.el("code", {}, "modtrain launch --root …"),
      " starts one, and it appears here.",
    );

    const unsearched = M.el(
      "p",
      { class: "note", hidden: true },
      "There are too many folders below this one, so that not all were searched; start ",
      M.el("code", {}, "modtrain dashboard"),
      " with a folder further down to see the rest.",
    );

    const silent = M.el("p", { class: "note", hidden: true });

    function drawChips(rows) {
      const counts = {};
      for (const row of rows) counts[kindOf(row)] = (counts[kindOf(row)] ?? 0) + 1;
      if (only && !counts[only]) only = null;
      M.keyed(
        chips,
        Object.keys(counts).sort(),
        (kind) => kind,
        (kind) => M.el("button", { type: "button", class: "chip", onclick: () => toggle(kind) }),
        (chip, kind) => {
          chip.setAttribute("aria-pressed", String(only === kind));
          M.fresh(chip, [kind, counts[kind]], () => [M.el("b", {}, counts[kind].toLocaleString("en")), M.state(kind)]);
        },
      );
    }

    function toggle(kind) {
      only = only === kind ? null : kind;
      drawChips(all);
      table.redraw();
    }

    const update = (data) => {
      all = data.runs;
      M.say(title, data.root || "Runs");
      M.title(urgent(data.runs), data.root || "runs");
      drawChips(data.runs);
      table.update(data.runs);
      empty.hidden = data.runs.length > 0;
      table.node.hidden = data.runs.length === 0;
      unsearched.hidden = !data.unsearched;
      silent.hidden = !data.silent;
      M.say(silent, data.silent ?? "");
    };
    return [
      [
        M.el("div", { class: "heading" }, title, count),
        M.el("div", { class: "toolbar" }, M.filterOf(table, "Filter by name, recipe, state, alarm"), chips),
        empty,
        table.node,
        unsearched,
        silent,
      ],
      update,
    ];
  }

  M.start(() => [], build);
})();
