/* Elements from values. Text goes in as text, never as markup, whatever a run or a file is called. */
"use strict";
(() => {
  const M = window.modtrain;
  const SVG = "http://www.w3.org/2000/svg";

  function fill(node, attributes, children) {
    for (const [name, value] of Object.entries(attributes ?? {})) {
      if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
      else if (value === true) node.setAttribute(name, "");
      else if (value !== null && value !== undefined && value !== false) node.setAttribute(name, String(value));
    }
    node.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false));
    return node;
  }

  /** An HTML element: el("a", {href, class, onclick}, "text", child, ...). */
  M.el = (tag, attributes, ...children) => fill(document.createElement(tag), attributes, children);

  /** An SVG element. */
  M.svg = (tag, attributes, ...children) => fill(document.createElementNS(SVG, tag), attributes, children);

  /** A name from outside: isolated, so that its writing direction does not affect the rest. */
  M.name = (text, attributes) => M.el("bdi", attributes, text);

  /** Change a text only where it differs, so that a selection stays. */
  M.say = (node, text) => {
    if (node.textContent !== text) node.textContent = text;
  };

  /** Replace the children, unless they were made from the same values. */
  M.fresh = (node, values, make) => {
    const seal = JSON.stringify(values ?? null);
    if (node.madeFrom === seal) return;
    const made = [make(values)].flat(Infinity).filter((child) => child !== null && child !== undefined);
    node.madeFrom = seal;
    const places = focusable(node);
    const at = places.indexOf(document.activeElement);
    node.replaceChildren(...made);
    if (at >= 0) (focusable(node)[at] ?? node.closest("[tabindex]"))?.focus({ preventScroll: true });
  };

  function focusable(node) {
    return [...node.querySelectorAll("a[href], button, input, select, summary, [tabindex='0']")];
  }

  /** Children in this order; those that stay keep focus, scroll position and selection. */
  M.order = (parent, nodes) => {
    const wanted = new Set(nodes);
    for (const child of [...parent.children]) if (!wanted.has(child)) child.remove();
    if (nodes.every((node, i) => parent.children[i] === node)) return;
    const focused = parent.contains(document.activeElement) ? document.activeElement : null;
    let next = parent.firstElementChild;
    for (const node of nodes) {
      if (node === next) next = next.nextElementSibling;
      else if (node.isConnected && parent.moveBefore) parent.moveBefore(node, next);
      else parent.insertBefore(node, next);
    }
    if (focused && focused !== document.activeElement) focused.focus({ preventScroll: true });
  };

  /** Whether text in it is selected. */
  M.marked = (node) => {
    const selection = document.getSelection();
    return !!selection && !selection.isCollapsed && node.contains(selection.anchorNode);
  };

  /** One child for each item, made once by its key and updated in place. */
  M.keyed = (parent, items, key, make, update) => {
    const byKey = (parent.byKey ??= new Map());
    const keys = new Set(items.map(key));
    for (const known of [...byKey.keys()]) if (!keys.has(known)) byKey.delete(known);
    const nodes = items.map((item) => {
      const own = key(item);
      if (!byKey.has(own)) byKey.set(own, make(item));
      update?.(byKey.get(own), item);
      return byKey.get(own);
    });
    M.order(parent, nodes);
  };

  /** What may be wider than its place, and says so then: `node.box` scrolls. */
  M.scroller = (label, child) => {
    const box = M.el("div", { class: "scroll", role: "group", "aria-label": label }, child);
    const hint = M.el("p", { class: "under sideways", hidden: true }, "More to the right: scroll sideways.");
    const sizes = new ResizeObserver(() => {
      const isWide = box.scrollWidth > box.clientWidth + 1;
      hint.hidden = !isWide;
      if (isWide) box.setAttribute("tabindex", "0");
      else box.removeAttribute("tabindex");
    });
    [box, child].forEach((node) => sizes.observe(node));
    return Object.assign(M.el("div", { class: "scroller" }, hint, box), { box });
  };

  let [title, trouble] = [document.title, ""];
  const writeTitle = () => {
    const text = trouble ? `${trouble} · ${title}` : title;
    if (document.title !== text) document.title = text;
  };

  /** The title of the tab: the state first, so that it can be read in a narrow one. */
  M.title = (state, name) => ((title = state ? `${state} · ${name}` : name), writeTitle());

  /** What is wrong with the connection, before the title: what follows may be old. */
  M.titleTrouble = (text) => ((trouble = text), writeTitle());

  /** A titled part of a page. */
  M.section = (title, attributes, ...children) => {
    const id = `h-${title.toLowerCase().replace(/[^a-z]+/g, "-")}`;
    return M.el(
      "section",
      { ...attributes, "aria-labelledby": id, class: `card ${attributes?.class ?? ""}` },
      M.el("h2", { id }, title),
      ...children,
    );
  };
})();
