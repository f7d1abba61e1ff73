/* The page of one run. */
"use strict";
(() => {
  const M = window.modtrain;

  function heading() {
    const title = M.el("h1");
    const state = M.el("span", { role: "status" });
    const metric = M.el("span", { class: "metric" });
    const bar = M.el("div", { class: "runbar" });
    const facts = M.el("div");
    const node = M.el("div", { class: "runhead" }, M.el("div", { class: "heading" }, title, state, metric), bar, facts);
    node.update = ({ run, problem }) => {
      M.fresh(title, run.name, (name) => M.name(name));
      M.fresh(state, problem ? "broken" : run.state, M.state);
      bar.hidden = facts.hidden = !!problem;
      if (problem) return;
      M.fresh(metric, run.metric, (best) =>
        best ? ["best ", M.el("b", {}, M.number(best.value)), " ", M.name(best.name)] : [],
      );
      M.fresh(bar, [run.progress, run.epoch, run.epochs, run.left_s, run.state, run.stage], () => {
        const text = `epoch ${M.number(run.epoch ?? 0)} of ${M.number(run.epochs)}`;
        return [
          M.progress(run.progress, text),
          M.el(
            "span",
            { class: "under" },
            text,
            run.stage && run.state !== "finished" ? [" · stage ", M.name(run.stage)] : "",
            ` · ${M.percent(run.progress)}`,
            run.left_s && run.state === "running" ? ` · ${M.duration(run.left_s)} left` : "",
          ),
        ];
      });
      const stop = run.interruption ?? run.stop;
      M.fresh(
        facts,
        [
          ...[run.recipe, run.seed, run.device, run.placement, run.created_at],
          ...[stop, run.continuation, run.early_stop, run.sweep, run.fixed],
        ],
        () =>
          M.facts([
            ["recipe", M.name(run.recipe ?? "")],
            ["created", M.moment(run.created_at)],
            ["seed", String(run.seed ?? "")],
            ["device", run.device],
            ["placement", M.name((run.placement ?? []).map((group) => group.join(" + ")).join(" | "))],
            ...Object.entries(run.fixed ?? {}).map(([name, { reference, sha256 }]) => [
              M.name(`${name} (fixed)`),
              M.name(`${reference}, sha256 ${sha256.slice(0, 12)}`),
            ]),
            [
              "sweep",
              run.sweep === null || run.sweep === undefined
                ? null
                : M.el("a", { href: M.links.sweep(run.sweep) }, M.name(M.called(run.sweep))),
            ],
            [run.interruption ? "stopped" : "stop request", stop ? M.name(stop) : null],
            ["may go on", run.continuation ? M.name(run.continuation) : null],
            ["early stopping", run.early_stop ? M.name(run.early_stop.says) : null],
            [
              "software",
              Object.entries(run.versions ?? {})
                .map(([name, version]) => `${name} ${version}`)
                .join(", "),
            ],
          ]),
      );
    };
    return node;
  }

  function build() {
    const alarms = M.alarms();
    const parts = {
      head: heading(),
      lanes: M.lanes(M.path),
      samples: M.samples(M.path),
      evaluation: M.evaluation(),
      curves: M.curves(),
      staleness: M.staleness(),
      time: M.timeShares(),
      config: M.configuration(),
      logs: M.logs(),
    };
    const modules = M.table(M.moduleColumns(M.path), {
      key: (m) => m.name,
      label: "Modules and their workers",
      text: (m) => m.name,
      cards: true,
    });
    const problem = M.el("div", { class: "trouble" });

    const update = (data) => {
      M.modules = data.modules.map((module) => module.name);
      const states = Object.fromEntries(data.modules.map((module) => [module.name, module.state]));
      const pages = data.pages ?? null;
      M.fresh(problem, data.problem ?? null, (says) => (says ? M.problem(says, M.repair()) : []));
      parts.head.update(data);
      whole.hidden = !!data.problem;
      M.title(data.problem ? "broken" : data.run.state, data.run.name);
      if (data.problem) return;
      alarms.update(data.alarms ?? []);
      modules.update(
        data.modules.map((m) => ({
          ...m,
          process: data.workers[m.worker] ?? {},
          has: !pages || (pages[m.name] ?? []).includes(m.version),
        })),
      );
      parts.lanes.update({ lanes: data.lanes, at: data.at ?? Date.now() / 1000, states, pages });
      parts.samples.update(data.grids, data.drawn, data.draws);
      parts.evaluation.update(data.evaluations);
      parts.curves.update(data.curves, data.stages);
      parts.staleness.update(data.staleness);
      parts.time.update(data.time);
      parts.config.update(data.config);
      const workers = Object.fromEntries(data.modules.map((module) => [module.name, module.worker]));
      parts.logs.update(data.logs, workers);
    };
    const whole = M.el(
      "div",
      {},
      alarms,
      M.section("Lanes", { class: "wide" }, parts.lanes),
      M.section("Modules and their workers", { class: "wide" }, modules.node),
      M.el(
        "div",
        { class: "columns" },
        M.section("Samples", {}, parts.samples),
        M.section("Newest evaluation", {}, parts.evaluation),
      ),
      M.section("Curves", { class: "wide" }, parts.curves),
      M.section("Staleness", { class: "wide" }, parts.staleness),
      M.el(
        "div",
        { class: "columns" },
        M.section("Where the time went", {}, parts.time),
        M.section("Configuration", {}, parts.config),
      ),
      M.section("Logs", { class: "wide" }, parts.logs),
    );
    return [[parts.head, problem, whole], update];
  }

  const above = ({ run }) => (run?.sweep ? [[M.called(run.sweep), M.links.sweep(run.sweep)]] : []);
  M.start((data) => [...above(data), [data.run?.name ?? "run", null]], build);
})();
