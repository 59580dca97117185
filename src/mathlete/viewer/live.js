"use strict";
// Keeps a page true while its run goes on. The server pushes elements of the page that have changed, as HTML that it has
// escaped; each takes the place of the element with its id. What is the same in both stays, so that what is open stays
// open and what has the focus keeps it.
(function () {
  var KEPT = ["open", "hidden", "aria-pressed"]; // belong to the reader, not to the run
  var live = document.getElementById("live");
  var source = null;

  function parse(html) {
    var holder = document.createElement("template");
    holder.innerHTML = html;
    return holder.content.firstElementChild;
  }

  function adopt(old, fresh) {
    Array.from(old.attributes).forEach(function (attribute) {
      if (!fresh.hasAttribute(attribute.name) && KEPT.indexOf(attribute.name) < 0) old.removeAttribute(attribute.name);
    });
    Array.from(fresh.attributes).forEach(function (attribute) {
      if (KEPT.indexOf(attribute.name) < 0) old.setAttribute(attribute.name, attribute.value);
    });
  }

  function morph(old, fresh) {
    if (old.isEqualNode(fresh) || (old.classList && old.classList.contains("unfold"))) return;
    if (old.nodeType !== Node.ELEMENT_NODE || old.nodeName !== fresh.nodeName) {
      old.replaceWith(fresh);
      return;
    }
    adopt(old, fresh);
    var before = Array.from(old.childNodes), after = Array.from(fresh.childNodes);
    after.forEach(function (child, index) {
      if (index < before.length) morph(before[index], child);
      else old.appendChild(child);
    });
    before.slice(after.length).forEach(function (child) { child.remove(); });
  }

  function say(words) {
    if (live.textContent !== words) live.textContent = words;
  }

  function listen() {
    source = new EventSource(live.dataset.events);
    source.addEventListener("parts", function (event) {
      var parts = JSON.parse(event.data);
      var known = Object.keys(parts).every(function (id) { return document.getElementById(id) !== null; });
      if (!known) { location.reload(); return; }
      Object.keys(parts).forEach(function (id) { morph(document.getElementById(id), parse(parts[id])); });
      document.dispatchEvent(new Event("changed"));
    });
    source.addEventListener("again", function () { source.close(); location.reload(); });
    source.addEventListener("error", function () {
      say("No connection to the viewer; this page shows how things stood.");
      live.className = "live lost";
    });
  }

  // A browser has few connections to one server, so a page that nobody sees gives its own back.
  function watch() {
    if (document.hidden && source) { source.close(); source = null; }
    if (!document.hidden && !source) listen();
  }
  document.addEventListener("visibilitychange", watch);
  watch();
})();
