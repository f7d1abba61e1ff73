/* Formats numbers, times and sizes. */
"use strict";
(() => {
  const M = window.modtrain;
  const NONE = "–";
  const TINY = 1e-4;

  const known = (value) => typeof value === "number" && Number.isFinite(value);

  const power = (value) => value.toExponential().replace("e+", "e");

  M.number = (value) => {
    if (!known(value)) return NONE;
    const size = Math.abs(value);
    if (size !== 0 && (size < TINY || size >= 1e7)) return power(Number(value.toPrecision(3)));
    if (Number.isInteger(value)) return value.toLocaleString("en");
    return size >= 1000 ? Math.round(value).toLocaleString("en") : String(Number(value.toPrecision(4)));
  };

  M.percent = (share) => (known(share) ? `${(100 * share).toFixed(share > 0 && share < 0.1 ? 1 : 0)}\u00a0%` : NONE);

  M.duration = (seconds) => {
    if (!known(seconds)) return NONE;
    const s = Math.max(0, Math.round(seconds));
    if (s < 60) return `${s} s`;
    if (s < 3600) return `${Math.floor(s / 60)} min${s < 600 && s % 60 ? ` ${s % 60} s` : ""}`;
    if (s < 172800) return `${Math.floor(s / 3600)} h ${Math.floor((s % 3600) / 60)} min`;
    return `${Math.floor(s / 86400)} d ${Math.floor((s % 86400) / 3600)} h`;
  };

  /* No seconds beyond the first minute. */
  const rough = (seconds) => M.duration(seconds < 60 ? seconds : 60 * Math.floor(seconds / 60));

  M.bytes = (size) => {
    if (!known(size)) return NONE;
    const step = size < 1e3 ? 0 : size < 1e6 ? 1 : size < 1e9 ? 2 : 3;
    return `${step ? Number((size / 1000 ** step).toPrecision(3)) : size} ${["B", "kB", "MB", "GB"][step]}`;
  };

  const DAY = { day: "numeric", month: "short" };
  const YEAR = { ...DAY, year: "numeric" };
  const CLOCK = { hour: "2-digit", minute: "2-digit", hourCycle: "h23" };

  /** A time of day, with the date where it is not today. */
  M.when = (unix) => {
    if (!known(unix) || !unix) return NONE;
    const date = new Date(unix * 1000);
    const now = new Date();
    const clock = date.toLocaleTimeString("en-GB", CLOCK);
    if (date.toDateString() === now.toDateString()) return clock;
    return `${date.toLocaleDateString("en-GB", date.getFullYear() === now.getFullYear() ? DAY : YEAR)}, ${clock}`;
  };

  M.moment = (unix) =>
    known(unix) ? new Date(unix * 1000).toLocaleString("en-GB", { ...YEAR, ...CLOCK, second: "2-digit" }) : NONE;

  M.value = (value) => {
    if (value === null || value === undefined) return "none";
    if (known(value) && value !== 0 && Math.abs(value) < TINY) return power(value);
    return typeof value === "object" ? JSON.stringify(value) : String(value);
  };

  M.plural = (count, one, many = `${one}s`) => `${count.toLocaleString("en")} ${count === 1 ? one : many}`;

  /** 3, 4, 5, 9 as "3–5, 9". */
  M.ranges = (numbers) => {
    const sorted = [...numbers].sort((a, b) => a - b);
    const parts = [];
    for (const n of sorted) {
      const last = parts.at(-1);
      if (last && n === last[1] + 1) last[1] = n;
      else parts.push([n, n]);
    }
    return parts.map(([a, b]) => (a === b ? `${a}` : `${a}–${b}`)).join(", ");
  };

  /* The server's clock, which the clock of this machine may not agree with; in an export it stands still. */
  let clock = { server: 0, own: performance.now() };
  M.setClock = (server) => (clock = { server, own: performance.now() });
  M.now = () => clock.server + (M.live ? (performance.now() - clock.own) / 1000 : 0);

  /** An element with the time since `at`, by the server's clock; it is updated every second. */
  M.age = (at, { suffix = " ago", none = NONE } = {}) => {
    const node = M.el("span", { class: "age" });
    if (!known(at)) return (node.append(none), node);
    node.since = at;
    node.suffix = suffix;
    M.say(node, rough(M.now() - at) + suffix);
    return node;
  };

  setInterval(() => {
    if (!M.live || document.hidden) return;
    for (const node of document.querySelectorAll(".age")) {
      if (node.since === undefined || M.marked(node)) continue;
      M.say(node, rough(M.now() - node.since) + node.suffix);
    }
  }, 1000);
})();
