// The words of prompts: buttons to choose one, differences marked.

import { button, h } from "./dom.js";

const LINKS = new Set("a an the of on in at with and or by from to into over under near".split(" "));

// The words of a prompt as buttons, without articles and prepositions; the pressed one is `chosen`.
export function wordButtons(prompt, chosen, onChoose, label) {
  const all = new Set(prompt.split(/[^\p{L}\p{N}'-]+/u).filter(Boolean));
  const words = [...all].filter((word) => word === chosen || !LINKS.has(word.toLowerCase()));
  return h(
    "div",
    { class: "chips", role: "group", "aria-label": label },
    words.map((word) =>
      button(word, () => onChoose(word), { "aria-pressed": String(word === chosen) }),
    ),
  );
}

const SMALL_WORDS = new Set(
  "a an the on in at of with and or by from to into over under near photo picture image painting drawing standing sitting lying running walking lies stands sits is are his her its".split(
    " ",
  ),
);

// The word of a prompt that is most likely its subject.
export function likelySubject(prompt, nouns = []) {
  const words = prompt
    .toLowerCase()
    .split(/[^\p{L}\p{N}'-]+/u)
    .filter(Boolean);
  return (
    words.find((word) => nouns.includes(word)) ?? words.find((word) => !SMALL_WORDS.has(word)) ?? ""
  );
}

// Two prompts with the words that differ marked (longest common subsequence of words).
export function wordDiff(before, after) {
  const a = before.split(/\s+/).filter(Boolean),
    b = after.split(/\s+/).filter(Boolean);
  const table = Array.from({ length: a.length + 1 }, () => new Uint16Array(b.length + 1));
  for (let i = a.length - 1; i >= 0; i--)
    for (let j = b.length - 1; j >= 0; j--)
      table[i][j] =
        a[i] === b[j] ? table[i + 1][j + 1] + 1 : Math.max(table[i + 1][j], table[i][j + 1]);
  const parts = [];
  let i = 0,
    j = 0;
  while (i < a.length || j < b.length) {
    if (i < a.length && j < b.length && a[i] === b[j]) {
      parts.push(a[i]);
      i++;
      j++;
    } else if (j < b.length && (i >= a.length || table[i][j + 1] >= table[i + 1][j]))
      parts.push(h("ins", {}, b[j++]));
    else parts.push(h("del", {}, a[i++]));
  }
  return h(
    "p",
    { class: "diff" },
    parts.flatMap((part) => [part, " "]),
  );
}
