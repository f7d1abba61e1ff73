/* Light or dark: what the system prefers, unless a person has chosen. Runs before anything is drawn. */
"use strict";
(() => {
  const M = (window.modtrain = {});
  const KEY = "modtrain-theme";
  const dark = matchMedia("(prefers-color-scheme: dark)");
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

  M.theme = () => chosen ?? (dark.matches ? "dark" : "light");

  M.otherTheme = () => {
    chosen = M.theme() === "dark" ? "light" : "dark";
    try {
      localStorage.setItem(KEY, chosen);
    } catch {
      /* it holds for this page */
    }
    apply();
  };

  dark.addEventListener("change", apply);
  apply();
})();
