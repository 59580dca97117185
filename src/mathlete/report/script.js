"use strict";
// Conveniences only: filters, "open all", and unfolding what a link or a print-out needs.
(function () {
  document.querySelectorAll(".js").forEach(function (element) { element.hidden = false; });

  var filters = document.querySelectorAll("[data-show]");
  filters.forEach(function (button) {
    button.addEventListener("click", function () {
      var shown = button.dataset.show;
      filters.forEach(function (other) { other.setAttribute("aria-pressed", String(other === button)); });
      document.querySelectorAll("[data-state]").forEach(function (element) {
        element.hidden = shown !== "all" && element.dataset.state !== shown;
      });
    });
  });

  document.querySelectorAll(".unfold").forEach(function (button) {
    button.addEventListener("click", function () {
      var open = button.textContent === "Open all";
      button.closest("section").querySelectorAll("details.attempt, details.many").forEach(function (details) {
        details.open = open;
      });
      button.textContent = open ? "Close all" : "Open all";
    });
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
