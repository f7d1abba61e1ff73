/* The columns of a run's table: a row for each module, with the worker that trains it. */
"use strict";
(() => {
  const M = window.modtrain;
  const LIVE = ["starting", "running", "waiting", "resting"];

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

  const whereCell = ([host, job, pid, device, restarts]) =>
    host
      ? [
          M.name(host),
          M.el(
            "span",
            { class: "under where" },
            [job ? `job ${job}` : null, pid ? `process ${pid}` : null, device].filter(Boolean).join(" · "),
          ),
          restarts ? M.el("span", { class: "under where" }, M.plural(restarts, "restart")) : null,
        ]
      : "–";

  /* A line that comes and goes keeps its place, so that nothing below it jumps. */
  const line = (...words) => M.el("span", { class: "under" }, words.length ? words : "\u00a0");

  const stateCell = ([state, peer, heartbeatAt, lastReportAt, rests]) => [
    M.state(state),
    rests ? M.el("span", { class: "under" }, "rests: learning rate 0") : null,
    heartbeatAt === null ? null : M.el("span", { class: "under" }, "heartbeat ", M.age(heartbeatAt)),
    heartbeatAt === null ? null : peer && state === "waiting" ? line("for ", M.name(peer)) : line(),
    lastReportAt === null ? null : lastReport(lastReportAt),
  ];

  const lastReport = (at) =>
    M.el("span", { class: "under", title: `${M.moment(at)} by its own clock` }, "last report ", M.when(at));

  M.moduleColumns = (runPath) => [
    { title: "Module", head: true, class: "c-module", of: (m) => m.name, show: (name) => M.module(name) },
    {
      title: "State",
      class: "c-state",
      of: (m) => [
        m.state,
        m.process.waiting_for,
        m.process.heartbeat_at ?? null,
        m.state === "lost" ? (m.process.last_report_at ?? null) : null,
        !!m.rests,
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
    { title: "Published", class: "num", of: (m) => m.newest_at, show: (at) => M.age(at) },
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
        LIVE.includes(m.state) || m.state === "finished" ? m.process.steps_per_s : null,
        LIVE.includes(m.state) ? m.process.left_s : null,
        LIVE.includes(m.state),
      ],
      show: ([rate, left, isLive]) => [
        Number.isFinite(rate) && rate ? `${M.number(Number(rate.toPrecision(3)))}/s` : "–",
        Number.isFinite(left) && left ? line(`${M.duration(left)} left`) : isLive ? line() : null,
      ],
    },
    { title: "Trained against", class: "c-peers", of: (m) => m.peers, show: peersCell },
    {
      title: "Worker",
      of: (m) => [m.process.host, m.process.job, m.process.pid, m.process.device, m.process.restarts],
      show: whereCell,
    },
  ];
})();
