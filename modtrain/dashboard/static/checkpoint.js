/* The page of one checkpoint: its files, its lineage, and whether it is intact. */
"use strict";
(() => {
  const M = window.modtrain;

  function build(data) {
    const { run, module, version, meta } = data;
    const has = (name, number) => !data.pages || (data.pages[name] ?? []).includes(number);
    const to = (name, number, text, attributes) =>
      number !== null && has(name, number)
        ? M.el("a", { ...attributes, href: M.links.checkpoint(run.path, name, number) }, text)
        : M.el("span", { class: "muted" }, text);
    M.modules =
      data.modules ??
      [...new Set([module, ...data.trained_against.map((one) => one.peer), ...data.used_by.map((one) => one.module)])].sort();

    const kind = meta.final
      ? "final version of this module"
      : meta.full
        ? "end of an epoch, with the state to resume from"
        : "within an epoch, weights only";
    const turn = M.el(
      "nav",
      { class: "turn", "aria-label": "Other versions" },
      data.previous === null ? null : to(module, data.previous, `‹ version ${data.previous}`, { rel: "prev" }),
      data.next === null ? null : to(module, data.next, `version ${data.next} ›`, { rel: "next" }),
    );
    const head = M.el(
      "div",
      { class: "runhead" },
      M.el(
        "div",
        { class: "heading" },
        M.el("h1", {}, M.module(module), ` version ${version}`),
        data.present ? null : M.el("span", { class: "state" }, M.icon("pruned"), "no longer on disk"),
        M.el("span", { class: "gap" }),
        turn,
      ),
      M.facts([
        ["kind", kind],
        ["epoch", M.number(meta.epoch)],
        ["step", M.number(meta.step)],
        ["published", M.moment(meta.published_at)],
        ["writer", M.el("code", {}, M.name(meta.writer ?? "–"))],
      ]),
    );
    const metrics = Object.entries(meta.metrics ?? {});
    const nodes = [
      head,
      data.problem ? M.problem(data.problem) : null,
      M.section("Lineage", { class: "wide" }, lineage(data, to)),
      M.el(
        "div",
        { class: "columns" },
        M.section("Files", {}, files(data)),
        M.section(
          "Metrics",
          {},
          metrics.length
            ? M.scroller(
                "Metrics of this version",
                M.el(
                  "table",
                  {},
                  M.el(
                    "tbody",
                    {},
                    metrics.map(([name, value]) =>
                      M.el(
                        "tr",
                        {},
                        M.el("th", { scope: "row" }, M.name(name)),
                        M.el("td", { class: "num" }, M.number(value)),
                      ),
                    ),
                  ),
                ),
              )
            : M.el("p", { class: "note" }, "It has no metrics."),
        ),
      ),
    ];
    return [nodes.filter(Boolean), () => {}];
  }

  /** The versions it was trained against on the left, itself in the middle, the versions that used it on the right. */
  function lineage(data, to) {
    const against = data.trained_against.map((one) =>
      M.el(
        "li",
        {},
        M.module(one.peer),
        M.el(
          "span",
          { class: "chain" },
          one.versions.map((number) => to(one.peer, number, `v${number}`)),
        ),
        M.el("span", { class: "muted" }, `epoch ${one.epoch}`),
      ),
    );
    const by = new Map();
    for (const one of data.used_by) by.set(one.module, [...(by.get(one.module) ?? []), one]);
    const seen = [...by].map(([module, ones]) =>
      M.el(
        "li",
        {},
        M.module(module),
        M.el(
          "span",
          { class: "chain" },
          ones.slice(0, 60).map((one) => to(module, one.version, `v${one.version}`)),
        ),
        ones.length > 60 ? M.el("span", { class: "muted" }, `and ${ones.length - 60} more`) : null,
      ),
    );
    const none = (text) => M.el("p", { class: "muted" }, text);
    return M.el(
      "div",
      { class: "lineage" },
      M.el(
        "div",
        {},
        M.el("h3", {}, "Trained against"),
        against.length ? M.el("ul", {}, against) : none("no frozen peers: initial weights, or all peers share its worker"),
      ),
      M.el("div", { class: "self" }, M.glyph(data.module), M.name(data.module), M.el("b", {}, `v${data.version}`)),
      M.el(
        "div",
        {},
        M.el("h3", {}, "Used by"),
        seen.length ? M.el("ul", {}, seen) : none("no version so far"),
      ),
    );
  }

  function files(data) {
    const columns = [
      {
        title: "File",
        head: true,
        of: (f) => [f.name, f.download],
        show: ([name, download]) =>
          download
            ? M.el(
                "a",
                { href: M.links.weights(data.run.path, data.module, data.version, name), download: name },
                M.name(name),
              )
            : M.name(name),
      },
      { title: "Size", class: "num", of: (f) => f.size, show: M.bytes },
      {
        title: "Intact",
        of: (f) => [f.present, f.ok ?? null, f.says ?? null],
        show: ([present, ok, says]) =>
          ok === null
            ? M.el("span", { class: "muted" }, present ? "not checked" : "removed")
            : M.el(
                "span",
                { class: `state state-${ok ? "finished" : "failed"}` },
                M.icon(ok ? "finished" : "failed"),
                M.name(says),
              ),
      },
      { title: "sha256", of: (f) => f.sha256, show: (sum) => M.el("code", { class: "sum", title: sum }, sum ?? "–") },
    ];
    const table = M.table(columns, { key: (f) => f.name, label: "Files", text: (f) => f.name });
    table.update(data.files);
    const result = M.el("span", { role: "status", class: "muted" });
    const verify = M.el("button", { type: "button", class: "do", onclick: check }, "Verify");

    async function check() {
      verify.disabled = true;
      M.say(result, "reading every file …");
      try {
        const answer = await fetch(
          `${M.base}data/verify/${data.run.path}/${encodeURIComponent(data.module)}/${data.version}`,
          { cache: "no-store" },
        );
        if (!answer.ok) throw new Error(`the server answers ${answer.status}`);
        const checked = (await answer.json()).files;
        const names = new Set(data.files.map((file) => file.name));
        const extra = checked
          .filter((one) => !names.has(one.name))
          .map((one) => ({ name: one.name, size: null, sha256: null, present: true, download: false }));
        table.update(
          [...data.files, ...extra].map((file) => ({ ...file, ...checked.find((one) => one.name === file.name) })),
        );
        M.say(
          result,
          checked.every((one) => one.ok) ? "Every file is intact." : "Some files are damaged.",
        );
      } catch (error) {
        M.say(result, `Not verified: ${error.message}.`);
      }
      verify.disabled = false;
    }

    return M.el(
      "div",
      {},
      data.files.length ? table.node : M.el("p", { class: "note" }, "Its files are not known."),
      data.present && M.live ? M.el("p", { class: "verify" }, verify, result) : null,
    );
  }

  M.start(
    (data) => [
      [data.run.name, M.links.run(data.run.path)],
      [`${data.module} v${data.version}`, null],
    ],
    build,
  );
})();
