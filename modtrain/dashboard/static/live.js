/* Updates while a page is open: conditional polling, slower while the server is away, none while the page is hidden. */
"use strict";
(() => {
  const M = window.modtrain;
  const POLL_MS = 2000;
  const SLOWEST_MS = 15000;
  const TIMEOUT_MS = 30000;

  /** Keep a page's data current: `address` is "runs" or "run/<path>"; `show(data)` draws; `report(state)` says how it goes. */
  M.follow = (address, show, report) => {
    let data = null;
    let tag = null;
    let timer = null;
    let busy = false;
    let pause = POLL_MS;
    let reached = Date.now();

    async function poll() {
      clearTimeout(timer);
      if (busy || document.hidden) return;
      busy = true;
      let changed = false;
      try {
        changed = await update();
        reached = Date.now();
        pause = POLL_MS;
        if (!document.hidden) report("live", reached);
      } catch (error) {
        pause = Math.min(2 * pause, SLOWEST_MS);
        report(error.gone ? "gone" : "away", reached, error);
      }
      busy = false;
      if (!document.hidden) timer = setTimeout(poll, pause);
      if (changed) show(data);
    }

    /** Fetch what is new; whether there was anything. */
    async function update() {
      const since = tag === null ? "" : `?since=${encodeURIComponent(tag)}`;
      const signal = AbortSignal.timeout(TIMEOUT_MS);
      const response = await fetch(`${M.base}data/${address}${since}`, { signal, cache: "no-store" });
      if (response.status === 304) return false;
      if (!response.ok) throw await refusal(response);
      const answer = await response.json();
      data = answer.delta ? M.applyDelta(data, answer.delta) : answer;
      tag = (response.headers.get("ETag") ?? "").split('"')[1] ?? null;
      M.setClock(data.at);
      return true;
    }

    /** Only a 404 of the dashboard itself means that something is gone: a proxy answers 404 for a server that is down. */
    async function refusal(response) {
      const gone = response.status === 404 && (await response.text()).includes("problem-page");
      return Object.assign(new Error(`the server answers ${response.status}`), { gone });
    }

    function rest() {
      clearTimeout(timer);
      report("paused", reached);
    }

    document.addEventListener("visibilitychange", () => (document.hidden ? rest() : poll()));
    addEventListener("pagehide", rest);
    addEventListener("pageshow", (event) => event.persisted && poll());
    poll();
  };
})();
