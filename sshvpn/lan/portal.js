// Keeps the page true: asks for it again, and says so when nobody answers.
"use strict";

const EVERY_MS = 3000;
const ANSWER_WITHIN_MS = 4000;

function localTimes() {
  for (const time of document.querySelectorAll("time")) {
    const when = new Date(time.dateTime);
    if (!Number.isNaN(when.getTime())) {
      const isToday = when.toDateString() === new Date().toDateString();
      const words = isToday ? { timeStyle: "short" } : { dateStyle: "medium", timeStyle: "short" };
      time.textContent = `since ${when.toLocaleString(undefined, words)}`;
    }
  }
}

let shown = null;

async function look() {
  const lost = document.getElementById("lost");
  let isLost = false;
  try {
    const signal = AbortSignal.timeout(ANSWER_WITHIN_MS);
    const answer = await fetch("/", { cache: "no-cache", credentials: "omit", signal });
    if (!answer.ok) throw new Error(answer.statusText);
    const text = await answer.text();
    if (text !== shown) {
      const now = new DOMParser().parseFromString(text, "text/html").getElementById("now");
      shown = text;
      if (now) document.getElementById("now").replaceWith(document.adoptNode(now));
      localTimes();
    }
  } catch {
    isLost = true;
  }
  lost.hidden = !isLost;
  document.getElementById("now").classList.toggle("stale", isLost);
}

async function keepLooking() {
  if (!document.hidden) await look();
  setTimeout(keepLooking, EVERY_MS);
}

document.addEventListener("visibilitychange", () => document.hidden || look());
localTimes();
keepLooking();
