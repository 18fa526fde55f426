"use strict";
// Charts, the legend that highlights trackers in all of them, and sortable tables.
(() => {
  const specifications = JSON.parse(document.getElementById("charts").textContent);
  const views = new Map();
  const kept = new Set();  // Trackers that were clicked.

  function theme() {
    const style = getComputedStyle(document.documentElement);
    const [text, soft, line] = ["--text", "--soft", "--line"].map((name) => style.getPropertyValue(name).trim());
    return {
      background: "transparent",
      axis: {labelColor: soft, titleColor: soft, gridColor: line, domainColor: line, tickColor: line},
      title: {color: text}, legend: {labelColor: soft, titleColor: soft},
    };
  }

  async function draw() {
    for (const place of document.querySelectorAll("[data-chart]")) {
      const id = place.dataset.chart;
      views.get(id)?.finalize();
      const options = {actions: false, renderer: "svg", config: theme()};
      views.set(id, (await vegaEmbed(place, specifications[id], options)).view);
    }
    highlight([...kept]);
    document.documentElement.dataset.drawn = "yes";
  }

  function highlight(trackers) {
    for (const view of views.values()) view.signal("picked", trackers).runAsync();
  }

  for (const button of document.querySelectorAll(".legend button")) {
    const tracker = button.dataset.tracker;
    button.addEventListener("pointerenter", (event) => {
      if (event.pointerType === "mouse") highlight([...kept, tracker]);
    });
    button.addEventListener("pointerleave", () => highlight([...kept]));
    button.addEventListener("click", () => {
      if (!kept.delete(tracker)) kept.add(tracker);
      button.setAttribute("aria-pressed", kept.has(tracker));
      highlight([...kept]);
    });
  }

  // Numbers as numbers, other text as text, empty cells last in both directions.
  function compare(a, b) {
    const numbers = [Number(a), Number(b)];
    return numbers.some(Number.isNaN) ? a.localeCompare(b, "en", {numeric: true}) : numbers[0] - numbers[1] || 0;
  }

  function sort(header) {
    const table = header.closest("table"), body = table.tBodies[0], column = header.cellIndex;
    const other = {ascending: "descending", descending: "ascending"};
    const direction = other[header.getAttribute("aria-sort")] ?? header.dataset.first;
    for (const one of table.querySelectorAll("th[aria-sort]")) one.removeAttribute("aria-sort");
    header.setAttribute("aria-sort", direction);
    const sign = direction === "ascending" ? 1 : -1;
    const value = (row) => row.cells[column].dataset.value;
    body.append(...[...body.rows].sort((one, two) => {
      const a = value(one), b = value(two);
      return a === "" || b === "" ? (a === "") - (b === "") : sign * compare(a, b);
    }));
  }

  for (const button of document.querySelectorAll(".sortable th button")) {
    button.addEventListener("click", () => sort(button.parentElement));
  }

  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
  draw();
})();
