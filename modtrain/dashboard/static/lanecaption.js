/* The caption of a version: the versions it was trained against, how old they were, and those that used it; and the key. */
"use strict";
(() => {
  const M = window.modtrain;

  /** An element; `show(data, picked)` describes the picked version, else the newest. */
  M.laneCaption = (runPath) => {
    const caption = M.el("div", { class: "picked", role: "status" });
    let data = { lanes: [] };
    let picked = null;

    const newest = () =>
      data.lanes
        .flatMap((lane) => lane.versions.slice(-1).map((v) => ({ module: lane.module, version: v.version, at: v.at })))
        .reduce((a, b) => (!a || b.at > a.at ? b : a), null);

        function describe() {
      const at = picked ?? newest();
      const v = at && M.versionOf(data.lanes, at.module, at.version);
      caption.setAttribute("aria-live", picked ? "polite" : "off");
      if (!v) return M.fresh(caption, ["nothing"], () => M.el("span", { class: "muted" }, "No version was published yet."));
      const link = (module, number, text) => {
        const has = !data.pages || (data.pages[module] ?? []).includes(number);
        return has ? M.el("a", { href: M.links.checkpoint(runPath, module, number) }, text) : M.el("span", {}, text);
      };
      const old = (peer, numbers) => {
        const used = M.versionOf(data.lanes, peer, numbers[0]);
        if (!used) return "";
        const behind = v.step - used.step;
        return behind > 0
          ? `, ${M.plural(behind, "step")} behind`
          : behind < 0
            ? `, ${M.plural(-behind, "step")} ahead`
            : ", same step";
      };
      const users = data.lanes.flatMap((lane) =>
        lane.versions
          .filter((o) => (o.peers?.[at.module] ?? []).includes(v.version))
          .map((o) => [lane.module, o.version]),
      );
      const isThin = data.lanes.some((lane) => (lane.count?.versions ?? 0) > lane.versions.length);
      const present = M.laneOf(data.lanes, at.module).present.includes(v.version);
      const values = [at, !picked, v, present, users, isThin, data.pages];
      M.fresh(caption, values, () => [
        M.el(
          "p",
          { class: "pickedname" },
          picked ? null : M.el("span", { class: "muted" }, "newest: "),
          M.module(at.module),
          " ",
          link(at.module, v.version, `version ${v.version}`),
          M.el(
            "span",
            { class: "muted" },
            ` · epoch ${M.number(v.epoch)} · published at step ${M.number(v.step)}${v.loss === null || v.loss === undefined ? "" : ` · loss ${M.number(v.loss)}`} · ${M.moment(v.at)}${v.final ? " · final" : ""}${present ? "" : " · no longer on disk"}`,
          ),
        ),
        M.el(
          "p",
          {},
          "trained against ",
          Object.keys(v.peers ?? {}).length
            ? Object.entries(v.peers)
                .map(([peer, numbers], n) => [
                  n ? " and " : "",
                  M.module(peer),
                  " ",
                  link(peer, numbers[0], `v${M.ranges(numbers)}`),
                  M.el("span", { class: "muted" }, old(peer, numbers)),
                ])
                .flat()
            : M.el("span", { class: "muted" }, "no peers on other workers"),
        ),
        users.length
          ? M.el(
              "p",
              {},
              "used by ",
              users
                .slice(0, 8)
                .flatMap(([module, number], n) => [n ? ", " : "", link(module, number, `${module} v${number}`)]),
              users.length > 8 ? ` and ${users.length - 8} more` : "",
              M.el("span", { class: "muted" }, isThin ? " among the versions that are shown" : ""),
            )
          : null,
      ]);
    }

    caption.show = (next, choice) => {
      [data, picked] = [next, choice];
      describe();
    };
    return caption;
  };

  /** What the shapes mean. */
  M.laneKey = () => {
    const sample = (text, shape, attributes, wide) =>
      M.el(
        "span",
        {},
        M.svg(
          "svg",
          { class: `m0 ${wide ? "" : "one"}`, viewBox: wide ? "-16 -8 32 16" : "-8 -8 16 16" },
          M.svg(shape, attributes),
        ),
        text,
      );
    const dot = "M-4.6 0a4.6 4.6 0 1 1 9.2 0a4.6 4.6 0 1 1-9.2 0z";
    return M.el(
      "p",
      { class: "key", "aria-hidden": "true" },
      sample("end of an epoch", "path", { class: "version", d: dot }),
      sample("within an epoch", "path", { class: "version small", d: dot, transform: "scale(.62)" }),
      sample("no longer on disk", "path", { class: "version gone", d: dot }),
      sample("trained against", "path", { class: "link", d: "M-14 5C0 5 0-5 14-5" }, true),
      sample("worker", "rect", { class: "life", x: -14, y: -5, width: 28, height: 10, rx: 3 }, true),
      sample("waiting", "rect", { class: "wait", x: -14, y: -5, width: 28, height: 10 }, true),
      sample("died", "path", { class: "ending", d: "M-4-4l8 8M4-4l-8 8" }),
    );
  };
})();
