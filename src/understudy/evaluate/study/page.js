// Asks one question after the other; an answer counts when the server has said that it is kept.
"use strict";

const at = (id) => document.getElementById(id);
const rater = (location.pathname.match(/^\/r\/([\w-]+)$/) || [])[1];
const keys = { 1: "left", ArrowLeft: "left", 2: "right", ArrowRight: "right", 0: "same", " ": "same" };
let question = null, since = 0, busy = false;

function show(id) {
  for (const part of ["start", "ask", "end"]) at(part).hidden = part !== id;
}

function image(name, alt) {
  const found = document.createElement("img");
  found.src = "/pictures/" + name;
  found.alt = alt;
  return found;
}

function fill(id, names, alt) {
  at(id).hidden = names.length === 0;
  at(id).querySelector(".strip").replaceChildren(...names.map((n) => image(n, alt)));
}

function render(state) {
  question = state.question;
  if (!question) {
    show("end");
    at("thanks").focus();
    return;
  }
  at("bar").max = state.total;
  at("bar").value = state.done;
  at("count").textContent = `${state.done + 1} of ${state.total}`;
  at("asked").textContent = question.asked;
  at("text").textContent = question.text ? `“${question.text}”` : "";
  at("text").hidden = !question.text;
  fill("references", question.references, "The reference item");
  fill("source", question.source ? [question.source] : [], "The original image");
  at("left").src = "/pictures/" + question.left;
  at("right").src = "/pictures/" + question.right;
  show("ask");
  at("asked").focus();
  since = performance.now();
}

// Until it works: a server that was stopped comes back, and no answer is lost.
async function persist(path, body) {
  for (let wait = 500; ; wait = Math.min(wait * 2, 8000)) {
    try {
      const how = body === undefined ? {} : {
        method: "POST", body: JSON.stringify(body), headers: { "Content-Type": "application/json" },
      };
      const reply = await fetch(path, how);
      const said = await reply.json();
      if (reply.status < 500) {
        at("trouble").textContent = said.error || "";
        return said.error ? null : said;
      }
    } catch (error) { /* not reachable now */ }
    at("trouble").textContent = "Not saved yet: the study cannot be reached. Trying again ...";
    await new Promise((done) => setTimeout(done, wait));
  }
}

async function answer(word) {
  if (busy || !question) return;
  busy = true;
  const seconds = (performance.now() - since) / 1000;
  const said = await persist("/ask/" + rater, { question: question.id, answer: word, seconds });
  busy = false;
  if (said) render(said);
}

document.addEventListener("click", (event) => {
  const word = event.target.dataset && event.target.dataset.answer;
  if (word) answer(word);
});
document.addEventListener("keydown", (event) => {
  if (event.repeat || event.ctrlKey || event.metaKey || event.altKey) return;
  const onButton = event.target.tagName === "BUTTON" && event.key === " ";
  if (question && keys[event.key] && !onButton) {
    event.preventDefault();
    answer(keys[event.key]);
  }
});
at("begin").addEventListener("click", async () => {
  const said = await persist("/begin", {});
  if (said) location.assign("/r/" + said.rater);
});
if (rater) persist("/ask/" + rater).then((said) => said && render(said));
else show("start");
