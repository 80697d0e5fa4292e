"use strict";
(() => {
  const root = document.documentElement;
  const form = document.getElementById("filters");
  const count = document.getElementById("count");
  const theme = document.getElementById("theme");
  const ATTRIBUTES = ["dataset", "protocol", "ways", "shots"];

  function showDark(dark) {
    root.dataset.theme = dark ? "dark" : "light";
    theme.setAttribute("aria-pressed", String(dark));
  }

  function filter() {
    const wanted = Object.fromEntries(new FormData(form));
    root.dataset.cost = wanted.cost;
    let rows = 0;
    let tables = 0;
    for (const group of document.querySelectorAll(".group")) {
      const fits = ATTRIBUTES.every((name) => !wanted[name] || group.dataset[name] === wanted[name]);
      let shown = 0;
      for (const row of group.querySelectorAll("tbody tr")) {
        row.hidden = Boolean(wanted.backbone) && row.dataset.backbone !== wanted.backbone;
        shown += row.hidden ? 0 : 1;
        if (row.dataset.row) {
          for (const mark of group.querySelectorAll(`.scatter [data-row="${row.dataset.row}"]`)) {
            mark.toggleAttribute("hidden", row.hidden);
          }
        }
      }
      for (const table of group.querySelectorAll(".wide")) {
        table.hidden = !table.querySelector("tbody tr:not([hidden])");
      }
      group.hidden = !fits || !shown;
      rows += group.hidden ? 0 : shown;
      tables += group.hidden ? 0 : 1;
    }
    count.textContent = rows ? `${rows} rows in ${tables} tables` : "Nothing fits: choose fewer filters";
  }

  function value(row, column) {
    const cell = row.cells[column];
    const text = (cell.dataset.value ?? cell.textContent).trim();
    const number = Number(text);
    return text !== "" && !Number.isNaN(number) ? number : text.toLowerCase();
  }

  function compare(a, b) {
    if (a === "" || b === "") return (a === "") - (b === "");
    if (typeof a === typeof b) return a < b ? -1 : a > b ? 1 : 0;
    return typeof a === "number" ? -1 : 1;
  }

  function sort(head) {
    const table = head.closest("table");
    const column = head.cellIndex;
    const up = head.getAttribute("aria-sort") !== "ascending";
    for (const other of table.querySelectorAll("th[aria-sort]")) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", up ? "ascending" : "descending");
    const body = table.tBodies[0];
    const rows = [...body.rows].map((row) => [value(row, column), row]);
    rows.sort(([a], [b]) => (a === "" || b === "" ? compare(a, b) : up ? compare(a, b) : compare(b, a)));
    body.append(...rows.map(([, row]) => row));
  }

  function open() {
    const name = location.hash.slice(1);
    const target = name ? document.getElementById(name) : null;
    for (const run of document.querySelectorAll(".run.open")) run.classList.remove("open");
    const run = target && target.classList.contains("run") ? target : null;
    root.classList.toggle("one", Boolean(run));
    if (run) {
      run.classList.add("open");
      run.focus();
      scrollTo(0, 0);
    }
  }

  root.classList.add("js");
  form.hidden = false;
  showDark(matchMedia("(prefers-color-scheme: dark)").matches);
  theme.addEventListener("click", () => showDark(root.dataset.theme !== "dark"));
  form.addEventListener("change", filter);
  form.addEventListener("reset", () => setTimeout(filter));
  form.addEventListener("submit", (event) => event.preventDefault());
  for (const button of document.querySelectorAll(".ranked th button")) {
    button.addEventListener("click", () => sort(button.closest("th")));
  }
  addEventListener("hashchange", open);
  filter();
  open();
})();
