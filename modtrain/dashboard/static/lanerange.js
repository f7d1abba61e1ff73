/* The versions of the lanes that a page cannot hold: loaded for the times that are zoomed to; what is hidden is said. */
"use strict";
(() => {
  const M = window.modtrain;
  const PAUSE_MS = 200;
  const AROUND = 0.5; /* of the range that is seen, on both sides of it */

  const isThin = (lane) => (lane.count?.versions ?? 0) > lane.versions.length;

  /** A lane with the versions, workers and waits of another part of it; none beyond its own newest. */
  function joined(lane, more) {
    const last = lane.versions.at(-1)?.version ?? -1;
    const versions = new Map([...more.versions.filter((v) => v.version <= last), ...lane.versions].map((v) => [v.version, v]));
    const spans = (kind) => [...new Map([...more[kind], ...lane[kind]].map((span) => [span.from, span])).values()];
    return {
      ...lane,
      versions: [...versions.values()].sort((a, b) => a.version - b.version),
      present: [...new Set([...lane.present, ...more.present])],
      workers: spans("workers").sort((a, b) => a.from - b.from),
      waits: spans("waits"),
    };
  }

  /** `fill(lanes, range)` gives the lanes with what was loaded of this range (null: all); `changed` is called when there is more. */
  M.laneRange = (runPath, changed) => {
    const node = M.el("p", { class: "under hiding", role: "status", hidden: true });
    let loaded = null; /* {range, lanes} */
    let joins = { from: null, lanes: null };
    let timer = null;
    let failed = false;

    const covers = (range) => loaded && loaded.range[0] <= range[0] && loaded.range[1] >= range[1];
    const isEnough = (range) =>
      covers(range) && (!loaded.lanes.some(isThin) || loaded.range[1] - loaded.range[0] <= 4 * (range[1] - range[0]));

    async function load(range) {
      const pad = AROUND * (range[1] - range[0]);
      const wide = [range[0] - pad, range[1] + pad];
      try {
        const answer = await fetch(`${M.base}data/lanes/${runPath}?from=${wide[0]}&to=${wide[1]}`);
        failed = !answer.ok;
        if (answer.ok) loaded = { range: wide, lanes: (await answer.json()).lanes };
      } catch {
        failed = true;
      }
      changed();
    }

    function fill(lanes, range) {
      clearTimeout(timer);
      if (!range || !lanes.some(isThin)) return lanes;
      if (M.live && !failed && !isEnough(range)) timer = setTimeout(() => load(range), PAUSE_MS);
      failed = false;
      if (!loaded) return lanes;
      if (joins.from !== lanes || joins.loaded !== loaded)
        joins = {
          from: lanes,
          loaded,
          lanes: lanes.map((lane) => {
            const more = M.laneOf(loaded.lanes, lane.module);
            return more ? joined(lane, more) : lane;
          }),
        };
      return joins.lanes;
    }

    /** Say what is hidden: `fits` is whether every version that is known was drawn. */
    function say(lanes, range, fits) {
      const thin = lanes.filter(isThin);
      const waits = lanes.filter((lane) => (lane.count?.waits ?? 0) > lane.waits.length);
      const isAll = range ? thin.length === 0 || (covers(range) && !loaded.lanes.some(isThin)) : thin.length === 0;
      const shown = (lane) => `${M.number(lane.versions.length)} of ${M.plural(lane.count.versions, "version")} of ${lane.module}`;
      const zoom = M.live || !thin.length ? "; zoom in to see more." : ": an export holds no more.";
      const says = [
        !isAll && !range ? `Shown are ${thin.map(shown).join(", ")}${zoom}` : null,
        !isAll && range ? `Not all versions of these times are shown${zoom}` : null,
        isAll && !fits ? "Not all versions of these times fit; zoom in to see more." : null,
        waits.length && !range ? "Of the waits the longest are shown." : null,
      ].filter(Boolean);
      node.hidden = !says.length;
      M.say(node, says.join(" "));
    }

    return { node, fill, say };
  };
})();
