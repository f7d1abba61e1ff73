/* A table that is sorted by its headers, filtered by text, and updated row by row. */
"use strict";
(() => {
  const M = window.modtrain;
  const PORTION = 100;

  const compare = (a, b) =>
    typeof a === "number" && typeof b === "number"
      ? a - b
      : String(a).localeCompare(String(b), "en", { numeric: true });

  const remembered = (key) => {
    try {
      return JSON.parse(sessionStorage.getItem(key)) ?? {};
    } catch {
      return {};
    }
  };

  const remember = (key, value) => {
    try {
      sessionStorage.setItem(key, JSON.stringify(value));
    } catch {
      /* kept for this page only */
    }
  };

  /**
   * columns: {title, of(row) -> plain value, show(value, row) -> node or text, sort(row) -> number or text,
   * first: "descending", class}. options: {key(row), label, sortBy, down, text(row), cards, count(shown, all), mark(tr, row)}.
   */
  M.table = (columns, options) => {
    const memory = `modtrain-table-${M.address}-${options.label}`;
    const saved = remembered(memory);
    const texts = new WeakMap(); /* by row */
    const body = M.el("tbody");
    const more = M.el("button", { type: "button", class: "more", onclick: () => showMore() });
    const nothing = M.el("p", { class: "note nothing" }, options.nothing ?? "Nothing here yet.");
    const state = {
      rows: [],
      by: saved.by ?? options.sortBy,
      down: saved.down ?? !!options.down,
      words: saved.words ?? "",
      room: PORTION,
    };
    const heads = columns.map((column) => head(column));
    const table = M.el(
      "table",
      { class: options.cards ? `cards ${options.cards === true ? "labelled" : options.cards}` : "", role: "table" },
      M.el("caption", { class: "unseen" }, options.label),
      M.el("thead", { role: "rowgroup" }, M.el("tr", { role: "row" }, heads)),
      (body.setAttribute("role", "rowgroup"), body),
    );
    const box = M.scroller(options.label, table);
    const node = M.el("div", { class: "tablebox" }, box, nothing, more);
    box.addEventListener("keydown", walk);
    new IntersectionObserver((seen) => seen.some((one) => one.isIntersecting) && showMore(), {
      rootMargin: "400px",
    }).observe(more);

    function head(column) {
      const th = M.el("th", { scope: "col", role: "columnheader", class: column.class });
      if (!column.sort) return (th.append(column.title), th);
      th.append(
        M.el(
          "button",
          { type: "button", onclick: () => sortBy(column) },
          column.title,
          M.el("span", { class: "arrow", "aria-hidden": "true" }),
        ),
      );
      return th;
    }

    function sortBy(column) {
      const again = state.by === column.title;
      Object.assign(state, { by: column.title, down: again ? !state.down : column.first === "descending" });
      draw(true);
    }

    function showMore() {
      state.room += PORTION;
      draw();
    }

    /** Arrows go from the link of one row to that of the next. */
    function walk(event) {
      const way = { ArrowDown: "nextElementSibling", ArrowUp: "previousElementSibling" }[event.key];
      const row = event.target.closest?.("tbody tr");
      if (!way || !row || !event.target.matches("a")) return;
      const link = row[way]?.querySelector("a");
      if (link) (event.preventDefault(), link.focus());
    }

    function makeRow() {
      return M.el(
        "tr",
        { role: "row" },
        columns.map((column) =>
          M.el(column.head ? "th" : "td", {
            class: column.class,
            "data-label": column.title,
            role: column.head ? "rowheader" : "cell",
            scope: column.head ? "row" : null,
          }),
        ),
      );
    }

    function updateRow(tr, row) {
      if (tr.row === row) return;
      tr.row = row;
      columns.forEach((column, i) => {
        const value = column.of(row);
        const show = column.show ?? ((plain) => (plain === null || plain === undefined ? "–" : String(plain)));
        M.fresh(tr.cells[i], value, () => show(value, row));
      });
      options.mark?.(tr, row);
    }

    function matching() {
      const words = state.words.toLowerCase().split(/\s+/).filter(Boolean);
      return state.rows.filter((row) => {
        if (options.only && !options.only(row)) return false;
        if (!words.length) return true;
        if (!texts.has(row)) texts.set(row, options.text(row).toLowerCase());
        return words.every((word) => texts.get(row).includes(word));
      });
    }

    function draw(byHand = false) {
      const column = columns.find((one) => one.title === state.by);
      const rows = matching();
      if (column) {
        const sign = state.down ? -1 : 1;
        const sorted = rows.map((row) => [column.sort(row), row]);
        const empty = ([value]) => value === null || value === undefined || Number.isNaN(value);
        sorted.sort((a, b) => (empty(a) || empty(b) ? empty(a) - empty(b) : sign * compare(a[0], b[0])));
        rows.splice(0, rows.length, ...sorted.map(([, row]) => row));
      }
      heads.forEach((th, i) => {
        if (columns[i].sort)
          th.setAttribute(
            "aria-sort",
            columns[i].title === state.by ? (state.down ? "descending" : "ascending") : "none",
          );
      });
      const shown = rows.slice(0, state.room);
      if (byHand || !M.marked(body)) M.keyed(body, shown, options.key, makeRow, updateRow);
      more.hidden = shown.length === rows.length;
      M.say(more, `Show ${Math.min(PORTION, rows.length - shown.length)} more of ${rows.length - shown.length}`);
      nothing.hidden = rows.length > 0;
      box.hidden = rows.length === 0;
      options.count?.(rows.length, state.rows.length);
      remember(memory, { by: state.by, down: state.down, words: state.words });
    }

    return {
      node,
      words: () => state.words,
      /** New values of all rows. */
      update: (rows) => ((state.rows = rows), draw()),
      /** Only the rows that hold all of these words. */
      filter: (words) => (Object.assign(state, { words, room: PORTION }), draw(true)),
      redraw: () => draw(true),
      rowOf: (key) => body.byKey?.get(key),
    };
  };

  /* Once for all filters that a page makes one after the other. */
  document.addEventListener("keydown", (event) => {
    const input = document.getElementById("filter");
    const typing = event.target.matches?.("input, textarea, select");
    if (input && event.key === "/" && !typing && !event.ctrlKey && !event.metaKey && !event.altKey)
      (event.preventDefault(), input.focus(), input.select());
  });

  /** A field for a table's filter; `/` goes there, Escape empties it, the arrow down goes to the first row. */
  M.filterOf = (table, label) => {
    const input = M.el("input", {
      type: "search",
      id: "filter",
      placeholder: label,
      "aria-label": label,
      autocomplete: "off",
      spellcheck: "false",
      "aria-keyshortcuts": "/",
    });
    input.value = table.words();
    input.addEventListener("input", () => table.filter(input.value));
    input.addEventListener("keydown", (event) => {
      if (event.key === "Escape" && input.value) (event.preventDefault(), (input.value = ""), table.filter(""));
      if (event.key === "ArrowDown") (event.preventDefault(), table.node.querySelector("tbody a")?.focus());
    });
    return M.el("label", { class: "filter" }, M.icon("search"), input, M.el("kbd", { "aria-hidden": "true" }, "/"));
  };
})();
