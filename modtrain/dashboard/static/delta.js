/* Applies the delta of an update to a page's data; see delta.py. */
"use strict";
(() => {
  const M = window.modtrain;

  /** The new value; what did not change is shared with the old one. */
  M.applyDelta = (old, delta) => {
    if ("set" in delta) return delta.set;
    if ("keys" in delta) {
      const value = { ...old };
      for (const key of delta.drop) delete value[key];
      for (const [key, change] of Object.entries(delta.keys)) value[key] = M.applyDelta(old[key], change);
      return value;
    }
    if ("add" in delta) return [...old.slice(delta.skip, delta.skip + delta.keep), ...delta.add];
    const value = [...old];
    for (const [index, change] of Object.entries(delta.items)) value[index] = M.applyDelta(old[index], change);
    return value;
  };
})();
