"use strict";
// Shows notifications of new leads, and a page of its own while there is no connection. It keeps nothing else: pages are private.
const OFFLINE = "offline-1";

self.addEventListener("install", (event) => {
  event.waitUntil(caches.open(OFFLINE).then((cache) => cache.add(new Request("/offline", { credentials: "omit" }))).then(() => self.skipWaiting()));
});
self.addEventListener("activate", (event) => {
  event.waitUntil(caches.keys().then((names) => Promise.all(names.filter((name) => name !== OFFLINE).map((name) => caches.delete(name))))
    .then(() => self.clients.claim()));
});
self.addEventListener("fetch", (event) => {
  if (event.request.mode !== "navigate" || event.request.method !== "GET") return;
  event.respondWith(fetch(event.request).catch(() => caches.match("/offline").then((page) => page || Response.error())));
});
self.addEventListener("push", (event) => {
  const message = event.data ? event.data.json() : { title: "New lead", body: "", tag: "lead", path: "/business/inbox" };
  event.waitUntil(self.registration.showNotification(message.title, {
    body: message.body, tag: message.tag, data: { path: message.path }, requireInteraction: true,
  }));
});
self.addEventListener("notificationclick", (event) => {
  event.notification.close();
  const path = event.notification.data ? event.notification.data.path : "/business/inbox";
  event.waitUntil(self.clients.openWindow(path));
});
