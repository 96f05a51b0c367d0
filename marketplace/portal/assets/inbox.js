"use strict";
// The inbox: counts in the title, a sound, notifications, the time left. Without it the cards and their buttons work as well.
(() => {
  const inbox = document.querySelector("[data-inbox]");
  if (!inbox) return;
  const title = document.title;
  const cards = () => [...inbox.querySelectorAll("[data-key]")];
  let known = new Set(cards().map((card) => card.dataset.key));

  // The sound: two short tones. A browser allows it after the first tap on the page.
  const sound = document.querySelector("[data-sound]");
  let context = null;
  const isOn = () => localStorage.getItem("inbox-sound") !== "off";
  const showSound = () => {
    sound.setAttribute("aria-pressed", String(isOn()));
    sound.textContent = isOn() ? "Sound is on" : "Sound is off";
  };
  const wake = () => { context = context || (window.AudioContext ? new AudioContext() : null); if (context) context.resume(); };
  const play = () => {
    if (!isOn() || !context || context.state !== "running") return;
    [[880, 0], [1175, 0.18]].forEach(([pitch, at]) => {
      const tone = context.createOscillator(), volume = context.createGain(), start = context.currentTime + at;
      tone.frequency.value = pitch;
      volume.gain.setValueAtTime(0.2, start);
      volume.gain.exponentialRampToValueAtTime(0.001, start + 0.3);
      tone.connect(volume).connect(context.destination);
      tone.start(start); tone.stop(start + 0.3);
    });
  };
  if (window.AudioContext) {
    sound.hidden = false;
    showSound();
    document.addEventListener("pointerdown", wake, { once: true });
    sound.onclick = () => { localStorage.setItem("inbox-sound", isOn() ? "off" : "on"); wake(); showSound(); play(); };
  }

  // Notifications of this device while the page is in the background. They name the service and nothing of the person.
  const ask = document.querySelector("[data-notify]");
  const canAsk = () => window.Notification && Notification.permission === "default";
  ask.hidden = !canAsk();
  ask.onclick = () => Notification.requestPermission().then(() => { ask.hidden = !canAsk(); });
  const notify = (card) => {
    if (!document.hidden || !window.Notification || Notification.permission !== "granted") return;
    try { new Notification("New lead in " + card.dataset.title, { tag: card.dataset.key }); } catch { /* a phone shows them by its service worker */ }
  };

  // Messages while the page is closed: the service worker shows them, by a subscription that the form stores.
  const push = document.querySelector("[data-push]");
  const bytesOf = (text) => Uint8Array.from(atob(text.replace(/-/g, "+").replace(/_/g, "/")), (letter) => letter.charCodeAt(0));
  if (push && "serviceWorker" in navigator && window.PushManager) {
    navigator.serviceWorker.register("/service-worker.js").then((worker) => worker.pushManager.getSubscription().then((own) => {
      push.hidden = Boolean(own) && Notification.permission === "granted";
      push.onclick = async () => {
        if (await Notification.requestPermission() !== "granted") return;
        const key = bytesOf(document.querySelector("[data-push-key]").dataset.pushKey);
        const made = (await worker.pushManager.subscribe({ userVisibleOnly: true, applicationServerKey: key })).toJSON();
        const form = push.form;
        form.elements.url.value = made.endpoint;
        form.elements.p256dh.value = made.keys.p256dh;
        form.elements.auth.value = made.keys.auth;
        form.submit();
      };
    })).catch(() => {});
  }

  const count = () => { const number = cards().length; document.title = number ? "(" + number + ") " + title : title; };
  const left = () => inbox.querySelectorAll("[data-until]").forEach((place) => {
    const seconds = Math.max(0, Math.round((new Date(place.dataset.until) - Date.now()) / 1000));
    place.textContent = ", " + Math.floor(seconds / 60) + ":" + String(seconds % 60).padStart(2, "0") + " left";
  });
  const look = () => {
    const fresh = cards().filter((card) => !known.has(card.dataset.key));
    known = new Set(cards().map((card) => card.dataset.key));
    if (fresh.length) { play(); fresh.forEach(notify); }
    count(); left();
  };
  new MutationObserver((changes) => {
    if (changes.some((change) => change.target.matches("[data-live]") || [...change.addedNodes].some((node) => node.matches && node.matches("button.behind")))) look();
  }).observe(inbox, { childList: true, subtree: true });
  setInterval(left, 1000);
  count(); left();

  // Without a connection a tap says so, and takes nothing.
  const offline = document.querySelector("[data-offline]");
  const showConnection = () => { offline.hidden = navigator.onLine; };
  window.addEventListener("online", showConnection);
  window.addEventListener("offline", showConnection);
  inbox.addEventListener("submit", (event) => {
    if (!navigator.onLine) { event.preventDefault(); showConnection(); return; }
    if (event.target.dataset.sent) { event.preventDefault(); return; }
    event.target.dataset.sent = "yes";
  });
  window.addEventListener("pageshow", () => inbox.querySelectorAll("[data-sent]").forEach((form) => { delete form.dataset.sent; }));
})();
