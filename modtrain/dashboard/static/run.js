/* The page of one run. */
"use strict";
(() => {
  const M = window.modtrain;

  const OVER = ["finished", "failed", "stopped", "preempted"];

  function peersCell(peers, module) {
    const names = Object.keys(peers ?? {});
    if (!names.length) return M.el("span", { class: "muted" }, module.version ? "no frozen peer" : "–");
    return M.el("ul", { class: "mods" }, names.map((peer) => {
      const used = peers[peer];
      const old = used.behind ? `${used.behind} behind` : "newest";
      return M.el("li", {}, M.glyph(peer), M.name(peer), M.el("span", { class: "v" }, `v${used.version ?? "?"}`), M.el("span", { class: "muted" }, old, used.ensemble > 1 ? ` · ${used.ensemble} at once` : ""));
    }));
  }

  const whereCell = ([host, job, pid, device]) => (host ? [M.name(host), M.el("span", { class: "under where" }, [job ? `job ${job}` : null, pid ? `process ${pid}` : null, device].filter(Boolean).join(" · "))] : "–");

  const stateCell = ([state, peer, age]) => [
    M.state(state),
    peer && state === "waiting" ? M.el("span", { class: "under" }, "for ", M.name(peer)) : null,
    age === null ? null : M.el("span", { class: "under" }, "heartbeat ", M.age(age)),
  ];

  /* A row for each module, with the worker that trains it. */
  const columns = (runPath) => [
    { title: "Module", head: true, class: "c-module", of: (m) => m.name, show: (name) => M.module(name) },
    { title: "State", of: (m) => [m.state, m.by.waiting_for, OVER.includes(m.state) ? null : (m.by.beat_age_s ?? null)], show: stateCell },
    { title: "Version", class: "num", of: (m) => [m.name, m.version, m.has], show: ([name, version, has]) => (version === null ? "–" : has ? M.el("a", { href: M.links.checkpoint(runPath, name, version) }, `v${version}`) : `v${version}`) },
    { title: "Published", class: "num", of: (m) => m.age_s, show: (age) => M.age(age) },
    { title: "Step", class: "num", of: (m) => [m.step, m.steps, m.epoch, m.epochs], show: ([step, steps, epoch, epochs]) => [steps ? `${M.number(step)}/${M.number(steps)}` : M.number(step), M.el("span", { class: "under" }, `epoch ${epoch}/${epochs}`)] },
    { title: "Loss", class: "num", of: (m) => m.losses?.loss ?? m.metrics?.loss ?? null, show: M.number },
    { title: "Rate", class: "num", of: (m) => [m.by.steps_per_s, [...OVER, "lost"].includes(m.state) ? null : m.by.left_s], show: ([rate, left]) => [rate ? `${M.number(Number(rate.toPrecision(3)))}/s` : "–", left ? M.el("span", { class: "under" }, `${M.duration(left)} left`) : null] },
    { title: "Trained against", class: "c-peers", of: (m) => m.peers, show: peersCell },
    { title: "Worker", of: (m) => [m.by.host, m.by.job, m.by.pid, m.by.device], show: whereCell },
  ];

  const CONFIG = [
    { title: "Setting", head: true, of: (c) => c.name, show: (name) => M.name(name), sort: (c) => c.name },
    { title: "Value", of: (c) => [c.value, c.differs], show: ([value, differs]) => [M.name(M.value(value), { class: differs ? "differs" : "" })] },
    { title: "Default", of: (c) => [c.default, c.differs], show: ([value, differs]) => (differs ? M.name(M.value(value), { class: "muted" }) : M.el("span", { class: "muted" }, value === null ? "" : "same")) },
  ];

  function configuration() {
    const options = { key: (c) => c.name, text: (c) => `${c.name} ${M.value(c.value)}` };
    const differing = M.table(CONFIG, { ...options, label: "Settings that differ from the defaults" });
    const rest = M.table(CONFIG, { ...options, label: "All other settings" });
    const none = M.el("p", { class: "about" });
    const summary = M.el("summary");
    const node = M.el("div", {}, none, differing.node, M.el("details", {}, summary, rest.node));
    node.update = (rows) => {
      const differ = rows.filter((row) => row.differs);
      M.say(none, differ.length ? `${M.plural(differ.length, "parameter")} of the recipe ${differ.length === 1 ? "differs" : "differ"} from the default.` : "No parameter of the recipe is known to differ from its default.");
      differing.node.hidden = !differ.length;
      differing.update(differ);
      const others = rows.filter((row) => !row.differs);
      M.say(summary, `All ${others.length} other settings`);
      rest.update(others);
    };
    return node;
  }

  /** The tail of each log; it follows the end as long as its reader is there. */
  function logs() {
    const node = M.el("div", { class: "logs" });
    node.update = (rows) => M.keyed(node, rows, (row) => row.module, makeLog, (details, row) => {
      const pre = details.querySelector("pre");
      const atEnd = pre.scrollHeight - pre.scrollTop - pre.clientHeight < 30;
      const text = row.lines.join("\n");
      if (!M.marked(pre)) M.say(pre, text || "Nothing was written here.");
      if (atEnd) pre.scrollTop = pre.scrollHeight;
      M.say(details.querySelector(".size"), M.bytes(row.size));
      if (details.querySelector(".whole")) details.querySelector(".whole").hidden = row.size === 0;
    });
    return node;
  }

  function makeLog(row) {
    const whole = M.live ? M.el("a", { class: "whole", href: `${M.base}data/log/${M.path}/${encodeURIComponent(row.module)}` }, "more of it as text") : null;
    const pre = M.el("pre", { tabindex: "0", role: "region", "aria-label": `Log of ${row.module}` });
    const details = M.el("details", { open: true }, M.el("summary", {}, M.module(row.module), " ", M.el("span", { class: "size muted" })), pre, whole);
    requestAnimationFrame(() => (pre.scrollTop = pre.scrollHeight));
    return details;
  }

  function heading() {
    const title = M.el("h1");
    const state = M.el("span", { role: "status" });
    const metric = M.el("span", { class: "metric" });
    const bar = M.el("div", { class: "runbar" });
    const facts = M.el("div");
    const node = M.el("div", { class: "runhead" }, M.el("div", { class: "heading" }, title, state, metric), bar, facts);
    node.update = ({ run }) => {
      M.fresh(title, run.name, (name) => M.name(name));
      M.fresh(state, run.state, M.state);
      M.fresh(metric, run.metric, (found) => (found ? [M.el("b", {}, M.number(found.value)), " ", M.name(found.name)] : []));
      M.fresh(bar, [run.progress, run.epoch, run.epochs, run.left_s, run.state], () => {
        const text = `epoch ${M.number(run.epoch ?? 0)} of ${M.number(run.epochs)}`;
        return [M.progress(run.progress, text), M.el("span", { class: "under" }, text, ` · ${M.percent(run.progress)}`, run.left_s && run.state === "running" ? ` · ${M.duration(run.left_s)} left` : "")];
      });
      M.fresh(facts, [run.recipe, run.seed, run.device, run.placement, run.created_at, run.stop, run.sweep, run.versions], () => M.facts([
        ["recipe", M.name(run.recipe ?? "")], ["begun", M.moment(run.created_at)], ["seed", String(run.seed ?? "")], ["device", run.device],
        ["placement", M.name((run.placement ?? []).map((group) => group.join(" + ")).join(" | "))],
        ["sweep", run.sweep === null || run.sweep === undefined ? null : M.el("a", { href: M.links.sweep(run.sweep) }, "the sweep that it is a trial of")],
        ["stop asked for", run.stop ? M.name(run.stop) : null],
        ["software", Object.entries(run.versions ?? {}).map(([name, version]) => `${name} ${version}`).join(", ")],
      ]));
    };
    return node;
  }

  function build(first) {
    const alarms = M.alarms();
    if (!first.lanes) {
      return [[M.el("h1", {}, M.name(first.run?.name ?? "A run")), M.problem(first.problem ?? "This run cannot be shown."), alarms], (data) => data.lanes && location.reload()];
    }
    const parts = {
      head: heading(), lanes: M.lanes(M.path), samples: M.samples(M.path), evaluation: M.evaluation(), curves: M.curves(),
      staleness: M.staleness(), time: M.timeShares(), config: configuration(), logs: logs(),
    };
    const modules = M.table(columns(M.path), { key: (m) => m.name, label: "Modules and their workers", text: (m) => m.name, cards: true });
    const problem = M.el("div");

    const update = (data) => {
      if (!data.lanes) return M.fresh(problem, data.problem, M.problem);
      M.modules = data.modules.map((module) => module.name);
      const states = Object.fromEntries(data.modules.map((module) => [module.name, module.state]));
      const ages = Object.fromEntries((data.run.modules ?? []).map((module) => [module.name, module.age_s]));
      const pages = data.pages ?? null;
      M.fresh(problem, data.problem ?? null, (says) => (says ? M.problem(says) : []));
      parts.head.update(data);
      alarms.update(data.alarms ?? []);
      modules.update(data.modules.map((m) => ({ ...m, by: data.workers[m.worker] ?? {}, age_s: ages[m.name] ?? null, has: !pages || (pages[m.name] ?? []).includes(m.version) })));
      parts.lanes.update({ lanes: data.lanes, at: data.at ?? Date.now() / 1000, states, pages });
      parts.samples.update(data.grids);
      parts.evaluation.update(data.evaluations);
      parts.curves.update(data.curves);
      parts.staleness.update(data.staleness);
      parts.time.update(data.time);
      parts.config.update(data.config);
      parts.logs.update(data.logs);
    };
    const nodes = [
      parts.head, problem, alarms,
      M.section("Lanes", { class: "wide" }, parts.lanes),
      M.section("Modules and their workers", { class: "wide" }, modules.node),
      M.el("div", { class: "columns" }, M.section("Samples", {}, parts.samples), M.section("Newest evaluation", {}, parts.evaluation)),
      M.section("Curves", { class: "wide" }, parts.curves),
      M.el("div", { class: "columns" }, M.section("Staleness", {}, parts.staleness), M.section("Where the time went", {}, parts.time)),
      M.el("div", { class: "columns" }, M.section("Configuration", {}, parts.config), M.section("Logs", {}, parts.logs)),
    ];
    return [nodes, update];
  }

  M.start((data) => [[data.run?.name ?? "run", null]], build);
})();
