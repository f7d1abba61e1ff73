/* The configuration of a run, settings that differ first, and the ends of its logs. */
"use strict";
(() => {
  const M = window.modtrain;

  const CONFIG = [
    { title: "Setting", head: true, of: (c) => c.name, show: (name) => M.name(name), sort: (c) => c.name },
    {
      title: "Value",
      of: (c) => [c.value, c.differs],
      show: ([value, differs]) => [M.name(M.value(value), { class: differs ? "differs" : "" })],
    },
    {
      title: "Default",
      of: (c) => [c.default, c.differs, c.value],
      show: ([value, differs, own]) =>
        differs
          ? M.name(M.value(value), { class: "muted" })
          : M.el("span", { class: "muted" }, value === null && own !== null ? "" : "same"),
    },
  ];

  M.configuration = () => {
    const options = { key: (c) => c.name, text: (c) => `${c.name} ${M.value(c.value)}` };
    const differing = M.table(CONFIG, { ...options, label: "Settings that differ from the defaults" });
    const rest = M.table(CONFIG, { ...options, label: "All other settings" });
    const none = M.el("p", { class: "about" });
    const summary = M.el("summary");
    const node = M.el("div", {}, none, differing.node, M.el("details", {}, summary, rest.node));
    node.update = (rows) => {
      const differ = rows.filter((row) => row.differs);
      M.say(
        none,
        differ.length
          ? `${M.plural(differ.length, "setting")} ${differ.length === 1 ? "differs" : "differ"} from the default.`
          : "No setting is known to differ from its default.",
      );
      differing.node.hidden = !differ.length;
      differing.update(differ);
      const others = rows.filter((row) => !row.differs);
      M.say(summary, differ.length ? `All ${others.length} other settings` : `All ${others.length} settings`);
      rest.update(others);
    };
    return node;
  };

  /** A worker of several modules writes the same lines to the log of each; one may be read a line later. */
  function once(rows, workers) {
    const logs = [];
    const within = (a, b) => a.lines.length > 0 && b.lines.includes(a.lines.at(-1));
    const same = (a, b) => workers[a.module] === workers[b.module] && (within(a, b) || within(b, a));
    for (const row of rows) {
      const twin = logs.find((other) => same(row, other));
      if (twin) twin.modules.push(row.module);
      else logs.push({ ...row, modules: [row.module] });
    }
    return logs;
  }

  /** The end of each log; it scrolls along while it is scrolled to its end. `workers`: the worker of each module. */
  M.logs = () => {
    const node = M.el("div", { class: "logs" });
    node.update = (rows, workers) =>
      M.keyed(
        node,
        once(rows, workers),
        (row) => JSON.stringify(row.modules),
        makeLog,
        (details, row) => {
          const pre = details.querySelector("pre");
          const atEnd = pre.scrollHeight - pre.scrollTop - pre.clientHeight < 30;
          const text = row.lines.join("\n");
          if (!M.marked(pre)) M.say(pre, text || "This log is empty.");
          if (atEnd) pre.scrollTop = pre.scrollHeight;
          M.say(details.querySelector(".size"), M.bytes(row.size));
          if (details.querySelector(".whole")) details.querySelector(".whole").hidden = row.size === 0;
        },
      );
    return node;
  };

  function makeLog(row) {
    const whole = M.live
      ? M.el(
          "a",
          { class: "whole", href: `${M.base}data/log/${M.path}/${encodeURIComponent(row.module)}` },
          "more as text",
        )
      : null;
    const pre = M.el("pre", { tabindex: "0", role: "region", "aria-label": `Log of ${row.modules.join(" and ")}` });
    const details = M.el(
      "details",
      { open: true },
      M.el(
        "summary",
        {},
        row.modules.map((module) => [M.module(module), " "]),
        M.el("span", { class: "size muted" }),
      ),
      pre,
      whole,
    );
    requestAnimationFrame(() => (pre.scrollTop = pre.scrollHeight));
    return details;
  }
})();
