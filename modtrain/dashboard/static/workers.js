/* The columns of a run's table: a row for each module, with the worker that trains it. */
"use strict";
(() => {
  const M = window.modtrain;
  const OVER = ["finished", "failed", "stopped", "preempted"];

  function peersCell(peers, module) {
    const names = Object.keys(peers ?? {});
    if (!names.length) return M.el("span", { class: "muted" }, module.version ? "no frozen peer" : "–");
    return M.el(
      "ul",
      { class: "mods" },
      names.map((peer) => {
        const used = peers[peer];
        const old = used.behind ? `${used.behind} behind` : "newest";
        return M.el(
          "li",
          {},
          M.glyph(peer),
          M.name(peer),
          M.el("span", { class: "v" }, `v${used.version ?? "?"}`),
          M.el("span", { class: "muted" }, old, used.ensemble > 1 ? ` · ${used.ensemble} at once` : ""),
        );
      }),
    );
  }

  const whereCell = ([host, job, pid, device]) =>
    host
      ? [
          M.name(host),
          M.el(
            "span",
            { class: "under where" },
            [job ? `job ${job}` : null, pid ? `process ${pid}` : null, device].filter(Boolean).join(" · "),
          ),
        ]
      : "–";

  /* A line that comes and goes keeps its place, so that nothing below it jumps. */
  const kept = (...words) => M.el("span", { class: "under" }, words.length ? words : "\u00a0");

  const stateCell = ([state, peer, age, heardAt]) => [
    M.state(state),
    age === null ? null : M.el("span", { class: "under" }, "heartbeat ", M.age(age)),
    age === null ? null : peer && state === "waiting" ? kept("for ", M.name(peer)) : kept(),
    heardAt === null ? null : lastHeard(heardAt),
  ];

  const lastHeard = (at) =>
    M.el("span", { class: "under", title: `${M.moment(at)} by its own clock` }, "last heard ", M.when(at));

  M.moduleColumns = (runPath) => [
    { title: "Module", head: true, class: "c-module", of: (m) => m.name, show: (name) => M.module(name) },
    {
      title: "State",
      class: "c-state",
      of: (m) => [
        m.state,
        m.by.waiting_for,
        OVER.includes(m.state) ? null : (m.by.beat_age_s ?? null),
        m.state === "lost" ? (m.heard_at ?? null) : null,
      ],
      show: stateCell,
    },
    {
      title: "Version",
      class: "num",
      of: (m) => [m.name, m.version, m.has],
      show: ([name, version, has]) =>
        version === null
          ? "–"
          : has
            ? M.el("a", { href: M.links.checkpoint(runPath, name, version) }, `v${version}`)
            : `v${version}`,
    },
    { title: "Published", class: "num", of: (m) => m.age_s, show: (age) => M.age(age) },
    {
      title: "Step",
      class: "num",
      of: (m) => [m.step, m.steps, m.epoch, m.epochs],
      show: ([step, steps, epoch, epochs]) => [
        steps ? `${M.number(step)}/${M.number(steps)}` : M.number(step),
        M.el("span", { class: "under" }, `epoch ${epoch}/${epochs}`),
      ],
    },
    { title: "Loss", class: "num", of: (m) => m.losses?.loss ?? m.metrics?.loss ?? null, show: M.number },
    {
      title: "Rate",
      class: "num",
      of: (m) => [
        m.state === "lost" ? null : m.by.steps_per_s,
        [...OVER, "lost"].includes(m.state) ? null : m.by.left_s,
        [...OVER, "lost"].includes(m.state),
      ],
      show: ([rate, left, over]) => [
        Number.isFinite(rate) && rate ? `${M.number(Number(rate.toPrecision(3)))}/s` : "–",
        Number.isFinite(left) && left ? kept(`${M.duration(left)} left`) : over ? null : kept(),
      ],
    },
    { title: "Trained against", class: "c-peers", of: (m) => m.peers, show: peersCell },
    { title: "Worker", of: (m) => [m.by.host, m.by.job, m.by.pid, m.by.device], show: whereCell },
  ];
})();
