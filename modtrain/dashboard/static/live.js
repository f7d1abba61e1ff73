/* News while a page is open: server-sent events, polling where they do not come, nothing while nobody looks. */
"use strict";
(() => {
  const M = window.modtrain;
  const SILENT_MS = 30000;
  const POLL_MS = 5000;
  const AGAIN_MS = 60000;
  const GAP_MS = 400;

  /** Keep a page's data new: `address` is "runs" or "run/<path>"; `show(data)` draws; `tell(state)` says how it goes. */
  M.follow = (address, show, tell) => {
    let source = null;
    let failures = 0;
    let heard = 0;
    let poll = null;
    let etag = null;
    let busy = false;
    let more = false;
    let reached = Date.now();

    async function fetchNews() {
      if (busy) return void (more = true);
      busy = true;
      more = false;
      try {
        const headers = etag ? { "If-None-Match": etag } : {};
        const answer = await fetch(`${M.base}data/${address}`, { headers, cache: "no-store" });
        if (answer.ok) {
          etag = answer.headers.get("ETag");
          const data = await answer.json();
          M.fetchedNow();
          show(data);
        } else if (answer.status !== 304) throw new Error(`the server says ${answer.status}`);
        reached = Date.now();
        tell(poll ? "polling" : "live", reached);
      } catch (error) {
        tell("away", reached, error);
      }
      setTimeout(() => {
        busy = false;
        if (more && !document.hidden) fetchNews();
      }, GAP_MS);
    }

    function pollOn() {
      if (poll) return;
      poll = setInterval(fetchNews, POLL_MS);
      fetchNews();
    }

    function pollOff() {
      clearInterval(poll);
      poll = null;
    }

    function listen() {
      source?.close();
      heard = Date.now();
      source = new EventSource(`${M.base}events/${address}`);
      source.onmessage = () => {
        heard = Date.now();
        failures = 0;
        pollOff();
        fetchNews();
      };
      source.addEventListener("still", () => {
        heard = Date.now();
        if (!poll) return;
        pollOff();
        fetchNews();
      });
      source.onerror = () => {
        failures += 1;
        if (failures < 2) return;
        source?.close();
        source = null;
        pollOn();
        setTimeout(() => !source && !document.hidden && listen(), AGAIN_MS);
      };
    }

    function rest() {
      source?.close();
      source = null;
      pollOff();
      tell("paused", reached);
    }

    setInterval(() => {
      if (source && Date.now() - heard > SILENT_MS) pollOn();
    }, POLL_MS);
    document.addEventListener("visibilitychange", () => {
      if (document.hidden) return rest();
      failures = 0;
      listen();
      fetchNews();
    });
    addEventListener("pagehide", rest);
    addEventListener("pageshow", (event) => event.persisted && (listen(), fetchNews()));
    if (!document.hidden) listen();
  };
})();
