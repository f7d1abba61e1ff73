/* News while a page is open: server-sent events, polling where they do not come, nothing while nobody looks. */
"use strict";
(() => {
  const M = window.modtrain;
  const SILENT_MS = 30000;
  const POLL_MS = 5000;
  const AGAIN_MS = 15000;
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
    let away = false;
    let reached = Date.now();

    async function fetchNews() {
      if (busy) return void (more = true);
      busy = true;
      more = false;
      let data = null;
      try {
        data = await news();
        reached = Date.now();
        away = false;
        if (!document.hidden) tell(poll ? "polling" : "live", reached);
      } catch (error) {
        away = true;
        tell(error.gone ? "gone" : "away", reached, error);
      }
      setTimeout(() => {
        busy = false;
        if (more && !document.hidden) fetchNews();
      }, GAP_MS);
      if (data) show(data);
    }

    /** The data, or null where it is the same. */
    async function news() {
      const headers = etag ? { "If-None-Match": etag } : {};
      const signal = AbortSignal.timeout(SILENT_MS);
      const answer = await fetch(`${M.base}data/${address}`, { headers, signal, cache: "no-store" });
      if (answer.status === 304) return null;
      if (!answer.ok) throw await refusal(answer);
      const data = await answer.json();
      etag = answer.headers.get("ETag");
      M.fetchedNow();
      return data;
    }

    /** Only our own 404 says that something is gone: a proxy says it, too, of a server that is not up. */
    async function refusal(answer) {
      const gone = answer.status === 404 && (await answer.text()).includes("problem-page");
      return Object.assign(new Error(`the server says ${answer.status}`), { gone });
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
        hear();
        pollOff();
        fetchNews();
      };
      source.addEventListener("still", () => {
        hear();
        if (!poll && !away) return;
        pollOff();
        fetchNews();
      });
      source.onerror = () => {
        failures += 1;
        /* Proxies end streams that are old, and the browser comes again by itself; after an HTTP error it does not. */
        if (failures < 2 && source.readyState !== EventSource.CLOSED) return;
        pollInstead();
      };
    }

    function pollInstead() {
      source?.close();
      source = null;
      pollOn();
    }

    function hear() {
      heard = reached = Date.now();
      failures = 0;
    }

    function listenAgain() {
      if (!source && !document.hidden) listen();
    }

    function rest() {
      source?.close();
      source = null;
      pollOff();
      tell("paused", reached);
    }

    function goOn() {
      failures = 0;
      listen();
      fetchNews();
    }

    setInterval(() => {
      if (source && Date.now() - heard > SILENT_MS) pollInstead();
    }, POLL_MS);
    setInterval(listenAgain, AGAIN_MS);
    document.addEventListener("visibilitychange", () => (document.hidden ? rest() : goOn()));
    addEventListener("pagehide", rest);
    addEventListener("pageshow", (event) => event.persisted && goOn());
    if (!document.hidden) listen();
  };
})();
