/* Light or dark: the preference of the system, unless one was chosen. Runs before anything is drawn. */
"use strict";
(() => {
  const M = (window.modtrain = {});
  const KEY = "modtrain-theme";
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const paper = matchMedia("print");
  let chosen = null;
  try {
    chosen = localStorage.getItem(KEY);
  } catch {
    /* no storage: the system decides */
  }

  function apply() {
    document.documentElement.dataset.theme = M.theme();
    document.dispatchEvent(new Event("modtrain-theme"));
  }

  /** Whether the page is printed: light, with everything drawn. */
  M.printing = paper.matches;
  M.theme = () => (M.printing ? "light" : (chosen ?? (dark.matches ? "dark" : "light")));

  function print(printing) {
    if (M.printing === printing) return;
    M.printing = printing;
    apply();
  }

  M.otherTheme = () => {
    chosen = M.theme() === "dark" ? "light" : "dark";
    try {
      localStorage.setItem(KEY, chosen);
    } catch {
      /* kept for this page only */
    }
    apply();
  };

  dark.addEventListener("change", apply);
  paper.addEventListener("change", () => print(paper.matches));
  addEventListener("beforeprint", () => print(true));
  addEventListener("afterprint", () => print(false));
  apply();
})();
