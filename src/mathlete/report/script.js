"use strict";
// Conveniences only: filters, "open all", and unfolding what a link or a print-out needs. Clicks are listened to on the
// document, so that they work on what a live page brings in later.
(function () {
  // After loading, and whenever a live page has changed something: show what needs this script, hide what is filtered.
  function refresh() {
    document.querySelectorAll(".js").forEach(function (element) { element.hidden = false; });
    var pressed = document.querySelector("[data-show][aria-pressed=true]");
    var shown = pressed ? pressed.dataset.show : "all";
    document.querySelectorAll("[data-state]").forEach(function (element) {
      element.hidden = shown !== "all" && element.dataset.state !== shown;
    });
  }
  refresh();
  document.addEventListener("changed", refresh);

  document.addEventListener("click", function (event) {
    var button = event.target.closest("button");
    if (button && button.dataset.show) {
      document.querySelectorAll("[data-show]").forEach(function (other) {
        other.setAttribute("aria-pressed", String(other === button));
      });
      refresh();
    } else if (button && button.classList.contains("unfold")) {
      var open = button.textContent === "Open all";
      button.closest("section").querySelectorAll("details.attempt, details.many").forEach(function (details) {
        details.open = open;
      });
      button.textContent = open ? "Close all" : "Open all";
    }
  });

  var folded = [];
  window.addEventListener("beforeprint", function () {
    folded = Array.from(document.querySelectorAll("details:not([open])"));
    folded.forEach(function (details) { details.open = true; });
  });
  window.addEventListener("afterprint", function () {
    folded.forEach(function (details) { details.open = false; });
    folded = [];
  });
})();
