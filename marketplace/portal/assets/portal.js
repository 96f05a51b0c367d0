"use strict";
// What the pages do beyond links and forms: live parts, copying, the few places where a script helps. Nothing depends on it.
(() => {
  const all = (selector, root = document) => [...root.querySelectorAll(selector)];

  // Copying.
  const offerCopies = (root) => all("[data-copy]", root).forEach((button) => { button.hidden = !navigator.clipboard; });
  document.addEventListener("click", (event) => {
    const button = event.target.closest("[data-copy]");
    if (!button) return;
    const word = button.textContent;
    navigator.clipboard.writeText(button.dataset.copy).then(() => {
      button.textContent = "Copied";
      setTimeout(() => { button.textContent = word; }, 1500);
    });
  });

  // Menus close on Escape and on a click elsewhere.
  document.addEventListener("click", (event) => all("details.who[open]").forEach((menu) => { if (!menu.contains(event.target)) menu.open = false; }));
  document.addEventListener("keydown", (event) => {
    if (event.key !== "Escape") return;
    all("details.who[open]").forEach((menu) => { menu.open = false; menu.querySelector("summary").focus(); });
  });

  // The search opens by "/" and by Ctrl-K, except where somebody types.
  document.addEventListener("keydown", (event) => {
    const link = document.querySelector("[data-search]");
    const typing = event.target.closest("input, select, textarea");
    const asked = event.key === "/" ? !typing && !event.ctrlKey && !event.metaKey : event.key === "k" && (event.ctrlKey || event.metaKey);
    if (link && asked) { event.preventDefault(); link.click(); }
  });

  // The board: a card that is dropped on a column sends the form that its Move button opens.
  const board = document.querySelector("[data-board]");
  if (board) {
    let dragged = null;
    board.addEventListener("dragstart", (event) => {
      dragged = event.target.closest("[data-lead]");
      if (dragged) event.dataTransfer.setData("text/plain", dragged.dataset.lead);
    });
    board.addEventListener("dragend", () => { dragged = null; all(".lane.over", board).forEach((lane) => lane.classList.remove("over")); });
    board.addEventListener("dragover", (event) => {
      const lane = event.target.closest("[data-stage]");
      const button = lane && dragged && dragged.querySelector(`button[name=stage][value="${lane.dataset.stage}"]`);
      all(".lane.over", board).forEach((other) => { if (other !== lane) other.classList.remove("over"); });
      if (button) { event.preventDefault(); lane.classList.add("over"); }
    });
    board.addEventListener("drop", (event) => {
      const lane = event.target.closest("[data-stage]");
      const button = lane && dragged && dragged.querySelector(`button[name=stage][value="${lane.dataset.stage}"]`);
      if (button) { event.preventDefault(); button.form.requestSubmit(button); }
    });
  }

  const wrong = document.querySelector("div.problems");
  if (wrong) wrong.focus();
  const here = document.querySelector(".places [aria-current]");
  if (here) here.scrollIntoView({ block: "nearest", inline: "center" });
  offerCopies(document);

  // Live parts: one stream for the page. A part that somebody is reading or typing in waits behind a button.
  const parts = all("[data-live]");
  if (!parts.length || !window.EventSource) return;
  const state = document.querySelector("[data-live-state]");
  const word = document.querySelector("[data-live-word]");
  const pause = document.querySelector("[data-live-pause]");
  const said = document.querySelector("[data-live-said]");
  const waiting = new Map();
  let paused = false, last = "", news = 0, saidAt = 0;

  const show = (name) => {
    if (!state) return;
    state.dataset.liveState = name;
    word.textContent = { live: "Live", paused: "Paused", reconnecting: "Reconnecting" }[name] + (last ? ", last event " + last : "");
  };
  const say = () => {
    if (!said || !news || Date.now() - saidAt < 10000) return;
    said.textContent = news === 1 ? "One update" : news + " updates";
    news = 0; saidAt = Date.now();
  };
  const isBusy = (part) => part.contains(document.activeElement) || part.querySelector("details[open]") || (window.scrollY > 200 && part.getBoundingClientRect().top < 0);
  const fill = (part, html) => {
    const before = new Set(all("[data-key]", part).map((row) => row.dataset.key));
    part.innerHTML = html;
    if (before.size) all("[data-key]", part).forEach((row) => { if (!before.has(row.dataset.key)) row.classList.add("fresh"); });
    offerCopies(part);
  };
  const release = (part) => {
    const held = waiting.get(part);
    if (!held) return;
    waiting.delete(part);
    held.button.remove();
    fill(part, held.html);
  };
  const hold = (part, html) => {
    const held = waiting.get(part) || { count: 0, button: document.createElement("button") };
    held.html = html; held.count += 1;
    held.button.type = "button"; held.button.className = "button small behind";
    held.button.textContent = paused ? "Show what is new" : held.count === 1 ? "Show 1 update" : "Show " + held.count + " updates";
    held.button.onclick = () => release(part);
    if (!waiting.has(part)) part.before(held.button);
    waiting.set(part, held);
  };

  const source = new EventSource("/live?parts=" + [...new Set(parts.map((part) => part.dataset.live))].join(","));
  source.onopen = () => show(paused ? "paused" : "live");
  source.onerror = () => show("reconnecting");
  parts.forEach((part) => source.addEventListener(part.dataset.live, (event) => {
    if (event.lastEventId !== "first") { last = new Date().toLocaleTimeString(); news += 1; }
    if (paused || (event.lastEventId !== "first" && isBusy(part))) hold(part, event.data); else { waiting.delete(part); fill(part, event.data); }
    show(paused ? "paused" : "live");
    say();
  }));
  if (pause) {
    pause.hidden = false;
    pause.onclick = () => {
      paused = !paused;
      pause.textContent = paused ? "Resume" : "Pause";
      show(paused ? "paused" : source.readyState === EventSource.OPEN ? "live" : "reconnecting");
      if (!paused) [...waiting.keys()].forEach(release);
    };
  }
  window.addEventListener("pagehide", () => source.close());
})();
