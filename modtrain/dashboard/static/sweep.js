/* The page of a sweep: its trials as a table, as parallel coordinates and as curves. */
"use strict";
(() => {
  const M = window.modtrain;
  const NONE = "No trial has been evaluated yet.";

  function columnsOf(varies, metrics, { metric, maximize, whys }) {
    return [
      {
        title: "Trial",
        head: true,
        class: "c-trial",
        of: (t) => [t.number, t.path, t.state],
        show: ([number, path, state]) =>
          ["created", "queued"].includes(state)
            ? M.el("span", {}, `trial ${number}`)
            : M.el("a", { href: M.links.run(path) }, `trial ${number}`),
        sort: (t) => t.number,
      },
      { title: "State", of: (t) => t.state, show: M.state, sort: (t) => t.state },
      ...(metric
        ? [
            {
              title: metric,
              class: "num best",
              of: (t) => t.result,
              show: (value) => M.el("b", {}, M.number(value)),
              sort: (t) => t.result,
              first: maximize === false ? "ascending" : "descending",
            },
          ]
        : []),
      ...varies.map((name) => ({
        title: name,
        class: "num varied",
        of: (t) => t.values[name] ?? null,
        show: (value) => M.name(value === null ? "–" : M.value(value)),
        sort: (t) => t.values[name] ?? null,
      })),
      { title: "Epoch", class: "num", of: (t) => t.epoch, sort: (t) => t.epoch, first: "descending" },
      ...metrics
        .filter((name) => name !== metric)
        .map((name) => ({
          title: name,
          class: "num",
          of: (t) => t.metrics?.[name] ?? null,
          show: M.number,
          sort: (t) => t.metrics?.[name] ?? null,
          first: "descending",
        })),
      ...(whys ? [{ title: "Why", class: "why", of: (t) => t.why, show: (why) => M.name(why ?? "") }] : []),
    ];
  }

  /** From the worst result to the best one: 0 to 1. */
  function shareOf(trials, maximize) {
    const known = trials.map((t) => t.result).filter((value) => Number.isFinite(value));
    const [low, high] = [Math.min(...known), Math.max(...known)];
    return (trial) => {
      const share = high > low ? (trial.result - low) / (high - low) : 1;
      return maximize === false ? 1 - share : share;
    };
  }

  function curvesOf(rows, trials, share, picked) {
    const state = new Map(trials.map((trial) => [trial.number, trial]));
    return rows.map((row) => {
      const trial = state.get(row.trial);
      const pruned = trial?.state === "pruned";
      const colour = trial && Number.isFinite(trial.result) ? M.shade(share(trial)) : M.colour("--muted");
      const strong = row.trial === picked;
      const ends = row.epoch.map((_, i) => (i === row.epoch.length - 1 ? (pruned ? "x" : "circle") : "circle"));
      return {
        x: row.epoch,
        y: row.value,
        name: `trial ${row.trial}${pruned ? ", pruned" : ""}`,
        mode: "lines+markers",
        hovertemplate: "%{y:.4g}",
        line: { color: colour, width: strong ? 4 : 1.7, dash: pruned ? "dot" : "solid" },
        marker: { color: colour, size: row.epoch.map((_, i) => (i === row.epoch.length - 1 ? 8 : 3)), symbol: ends },
      };
    });
  }

  function build(first) {
    const alarms = M.alarms();
    let data = first;
    let picked = null;
    let chosen = null;
    let table = null;
    let drawnFor = null;
    let loaded = { name: null, rows: [] };
    const title = M.el("h1");
    const state = M.el("span", { role: "status" });
    const best = M.el("span", { class: "metric" });
    const bar = M.el("div", { class: "runbar" });
    const facts = M.el("div");
    const place = M.el("div");
    const pending = M.el("p", { class: "note", hidden: true });
    const parallel = M.parallel(pick);
    const chart = M.chart("Metric curves of all trials");
    const nothing = M.el("p", { class: "note" });
    const which = M.el("select", { "aria-label": "Metric", onchange: () => choose(which.value) });
    const problem = M.el("div", { class: "trouble" });

    function pick(number) {
      if (picked === number) return;
      picked = number;
      parallel.pick(number);
      for (const tr of place.querySelectorAll("tbody tr"))
        tr.classList.toggle("is", tr.row?.number === number && number !== null);
      drawCurves();
    }

    function choose(name) {
      chosen = name;
      drawCurves();
      if (M.live && !isSent(name)) load();
    }

    const metricName = () => data.sweep.metric_name ?? data.sweep.metric?.name ?? null;

    function drawTable() {
      const metrics = [...new Set(data.trials.flatMap((t) => Object.keys(t.metrics ?? {})))];
      const whys = data.trials.some((t) => t.why);
      const layout = JSON.stringify([data.varies, metrics, metricName(), whys]);
      if (layout !== drawnFor) {
        drawnFor = layout;
        table = M.table(
          columnsOf(data.varies, metrics, { metric: metricName(), maximize: data.sweep.maximize, whys }),
          {
            key: (t) => t.number,
            label: "Trials",
            nothing: "No trial matches.",
            sortBy: metricName(),
            down: data.sweep.maximize !== false,
            text: (t) =>
              `trial ${t.number} ${t.state} ${Object.entries(t.values)
                .map(([k, v]) => `${k}=${M.value(v)}`)
                .join(" ")} ${t.why ?? ""}`,
            mark: (tr, row) => {
              tr.classList.toggle("dim", row.state === "pruned" || row.state === "failed");
              tr.onpointerenter = () => pick(row.number);
              tr.onpointerleave = () => pick(null);
            },
          },
        );
        table.node.addEventListener("focusin", (event) => pick(event.target.closest("tr")?.row?.number ?? null));
        place.replaceChildren(M.el("div", { class: "toolbar" }, M.filterOf(table, "Filter trials")), table.node);
      }
      table.update(data.trials);
    }

    /** The curves of a scalar of training come when it is chosen. */
    async function load() {
      const name = chosen;
      const answer = await fetch(`${M.base}data/scalar/${M.path}?name=${encodeURIComponent(name)}`).catch(() => null);
      if (!answer?.ok || name !== chosen) return;
      loaded = { name, rows: (await answer.json()).curves };
      drawCurves();
    }

    const isSent = (name) => data.curves.some((row) => row.name === name);

    function drawCurves() {
      const names = [...new Set([...data.curves.map((row) => row.name), ...(data.scalars ?? [])])];
      chosen = names.includes(chosen) ? chosen : names.includes(metricName()) ? metricName() : names[0];
      M.keyed(
        which,
        names,
        (name) => name,
        (name) => M.el("option", { value: name }, name),
      );
      if (chosen !== undefined) which.value = chosen;
      const own = isSent(chosen)
        ? data.curves.filter((row) => row.name === chosen)
        : loaded.name === chosen
          ? loaded.rows
          : [];
      const once = own.length > 0 && own.every((row) => row.epoch.length < 2);
      nothing.hidden = names.length > 0 && !once;
      M.say(
        nothing,
        once ? `${chosen} was measured once in each trial: the table and the axes above show all of it.` : NONE,
      );
      which.hidden = names.length < 2;
      chart.hidden = names.length === 0 || once;
      const share = shareOf(data.trials, data.sweep.maximize);
      chart.update(() => ({
        traces: curvesOf(own, data.trials, share, picked),
        extra: {
          revision: chosen,
          hovermode: "closest",
          xaxis: M.along("epoch"),
          yaxis: { title: chosen, ...M.upright(own.flatMap((row) => row.value)) },
        },
      }));
    }

    const update = (next) => {
      data = next;
      const { sweep } = data;
      M.fresh(problem, data.problem ?? null, (says) => (says ? M.problem(says, M.repair()) : []));
      M.fresh(title, sweep.name, (name) => M.name(name));
      M.fresh(state, data.problem ? "broken" : sweep.state, M.state);
      M.title(data.problem ? "broken" : sweep.state, sweep.name);
      whole.hidden = head.hidden = !!data.problem;
      if (data.problem) return;
      M.fresh(best, sweep.metric ?? null, (top) =>
        top && Number.isFinite(top.value)
          ? [
              M.el("b", {}, M.number(top.value)),
              " ",
              M.name(top.name),
              Number.isFinite(top.trial) ? ` · trial ${top.trial}` : "",
            ]
          : [],
      );
      M.fresh(bar, sweep.counts, () => [
        M.trialBar(sweep.counts ?? {}),
        M.el(
          "span",
          { class: "under" },
          `${M.plural(sweep.trials ?? data.trials.length, "trial")}: ${Object.entries(sweep.counts ?? {})
            .filter(([, n]) => n)
            .map(([word, n]) => `${n} ${word}`)
            .join(" · ")}`,
        ),
      ]);
      M.fresh(
        facts,
        [sweep.recipe, sweep.sampler, sweep.prune, sweep.maximize, sweep.seed, sweep.created_at, metricName()],
        () =>
          M.facts([
            ["recipe", M.name(sweep.recipe ?? "")],
            ["created", M.moment(sweep.created_at)],
            ["sampler", sweep.sampler],
            ["pruning", sweep.prune ?? "none"],
            [
              "best is",
              metricName()
                ? `the ${sweep.maximize === false ? "lowest" : "highest"} ${metricName()}`
                : "no metric was named",
            ],
            ["varies", M.name(data.varies.join(", "))],
          ]),
      );
      alarms.update(sweep.alarms ?? []);
      parallel.update({
        trials: data.trials,
        varies: data.varies,
        metric: metricName(),
        best: sweep.metric?.value ?? null,
        share: shareOf(data.trials, sweep.maximize),
      });
      drawTable();
      pending.hidden = !data.more_pending;
      const have = data.more_pending === 1 ? "has" : "have";
      M.say(pending, `and ${M.plural(data.more_pending ?? 0, "more trial")} that ${have} not begun`);
      drawCurves();
      if (M.live && chosen && !isSent(chosen)) load();
    };
    const dash = (pattern, text) =>
      M.el(
        "span",
        {},
        M.svg(
          "svg",
          { viewBox: "0 0 26 6", class: "dash" },
          M.svg("path", { d: "M0 3H26", "stroke-dasharray": pattern }),
        ),
        text,
      );
    const key = M.el(
      "p",
      { class: "key" },
      M.el("span", {}, "dark to bright: worse to better"),
      dash("1.5 3", " pruned, its curve ends with a cross"),
      dash("8 4", " failed"),
    );
    const head = M.el("div", {}, bar, facts);
    const whole = M.el(
      "div",
      {},
      alarms,
      M.section("Trials", { class: "wide" }, place, pending),
      M.section("Parallel coordinates", { class: "wide" }, parallel, key),
      M.section("Curves", { class: "wide" }, M.el("div", { class: "controls" }, which), nothing, chart),
    );
    const heading = M.el("div", { class: "heading" }, title, state, best);
    return [[M.el("div", { class: "runhead" }, heading, head), problem, whole], update];
  }

  M.start((data) => [[data.sweep?.name ?? "sweep", null]], build);
})();
