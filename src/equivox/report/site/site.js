"use strict";
// Tables are sorted by their heads and filtered by the controls above them, and the runs that a
// link leads to are opened.

function sortable(table) {
  const body = table.tBodies[0];
  [...table.tHead.rows[0].cells].forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    head.ariaSort = "none";
    button.addEventListener("click", () => sort(table, body, head, column));
  });
}

function sort(table, body, head, column) {
  const key = (row) => row.cells[column].dataset.value ?? "";
  const rows = [...body.rows];
  const numbers = rows.every((row) => key(row) === "" || Number.isFinite(Number(key(row))));
  // Numbers begin with the largest, words with the first of the alphabet.
  const first = numbers ? "descending" : "ascending";
  const second = numbers ? "ascending" : "descending";
  const order = head.ariaSort === first ? second : first;
  const sign = order === "ascending" ? 1 : -1;
  const compare = (a, b) => {
    if (a === "" || b === "") return (a === "") - (b === ""); // what is not known comes last
    return sign * (numbers ? Number(a) - Number(b) : a.localeCompare(b));
  };
  rows.sort((a, b) => compare(key(a), key(b)));
  body.append(...rows);
  for (const other of table.tHead.rows[0].cells) other.ariaSort = "none";
  head.ariaSort = order;
}

function filtered(form) {
  const rows = [...document.getElementById(form.dataset.for).tBodies[0].rows];
  const controls = [...form.elements].filter((control) => control.name);
  const passes = (row, { name, value }) => {
    if (value === "") return true;
    if (name === "text") return row.textContent.toLowerCase().includes(value.trim().toLowerCase());
    return row.dataset[name] === value;
  };
  const apply = () => {
    for (const row of rows) row.hidden = !controls.every((control) => passes(row, control));
    const shown = rows.filter((row) => !row.hidden).length;
    form.querySelector("output").value = `${shown} of ${rows.length} lines`;
  };
  form.hidden = false;
  form.addEventListener("input", apply);
  form.addEventListener("submit", (event) => event.preventDefault());
  apply();
}

function openTarget() {
  const target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
  const part = target?.closest("details");
  if (!part || part.open) return;
  part.open = true;
  target.scrollIntoView();
}

document.querySelectorAll("table.board").forEach(sortable);
document.querySelectorAll("form.filters").forEach(filtered);
addEventListener("hashchange", openTarget);
openTarget();
