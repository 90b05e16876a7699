"use strict";
// Tables are sorted by the column whose head is chosen: numbers by size, all else by letters.
// Cells without a value, and rows of cells that failed, stay at the end.
function sortKey(row, column) {
  const text = row.cells[column] ? row.cells[column].textContent.trim() : "";
  const number = parseFloat(text.replace("\u2212", "-").replace(/^[<>≤≥]\s*/, ""));
  return { text, number, empty: !text || row.querySelector(".failed") !== null };
}

function sortTable(table, column, head) {
  const descending = head.getAttribute("aria-sort") === "ascending";
  const body = table.tBodies[0];
  const rows = [...body.rows].map((row) => [sortKey(row, column), row]);
  const filled = rows.filter(([key]) => !key.empty);
  const numeric = filled.every(([key]) => !Number.isNaN(key.number));
  filled.sort(([a], [b]) => (numeric ? a.number - b.number : a.text.localeCompare(b.text)));
  if (descending) filled.reverse();
  for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
  head.setAttribute("aria-sort", descending ? "descending" : "ascending");
  body.append(...[...filled, ...rows.filter(([key]) => key.empty)].map(([, row]) => row));
}

for (const table of document.querySelectorAll("table.sortable")) {
  [...table.tHead.rows[0].cells].forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = head.textContent;
    head.replaceChildren(button);
    button.addEventListener("click", () => sortTable(table, column, head));
  });
}
