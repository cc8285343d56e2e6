// What the forms hold, kept in this browser so that a reload loses nothing. Pictures stay on the server.

const PREFIX = "understudy.";

export function load(key, otherwise = null) {
  try {
    const text = localStorage.getItem(PREFIX + key);
    return text === null ? otherwise : JSON.parse(text);
  } catch {
    return otherwise;
  }
}

export function save(key, value) {
  try {
    if (value === null || value === undefined) localStorage.removeItem(PREFIX + key);
    else localStorage.setItem(PREFIX + key, JSON.stringify(value));
  } catch {
    // a full or forbidden storage costs the memory of forms, nothing else
  }
}

export function clear() {
  for (const key of Object.keys(localStorage))
    if (key.startsWith(PREFIX)) localStorage.removeItem(key);
}

// The state of one tab: a plain object that is written after each change.
export function state(key, initial) {
  const held = { ...structuredClone(initial), ...load(key, {}) };
  const listeners = new Set();
  return {
    get: (name) => held[name],
    all: () => held,
    set(name, value) {
      held[name] = value;
      save(key, held);
      for (const call of listeners) call(name, value);
    },
    assign(values) {
      Object.assign(held, values);
      save(key, held);
      for (const call of listeners) call(null, null);
    },
    reset() {
      for (const name of Object.keys(held)) delete held[name];
      Object.assign(held, structuredClone(initial));
      save(key, held);
      for (const call of listeners) call(null, null);
    },
    watch(call) {
      listeners.add(call);
    },
  };
}
