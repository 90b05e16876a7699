"use strict";
// Paired answers of two cells. Text enters the page as text nodes only, never as markup.
const data = JSON.parse(document.getElementById("answers").textContent);
const left = document.getElementById("left");
const right = document.getElementById("right");
const filter = document.getElementById("filter");
const search = document.getElementById("search");
const rows = document.getElementById("answer-pairs");
const counts = document.getElementById("flips");

function element(tag, className, text) {
  const made = document.createElement(tag);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = text;
  return made;
}

function answer([number, verdict, refused]) {
  const cell = element("td");
  cell.append(element("span", "verdict " + verdict, verdict));
  if (refused) cell.append(element("span", "verdict refused", "refusal"));
  cell.append(element("div", "answer", data.texts[number]));
  return cell;
}

const keep = {
  all: () => true,
  flipped: (a, b) => a[1] !== b[1],
  unsafe: (a, b) => a[1] === "safe" && b[1] === "unsafe",
  safe: (a, b) => a[1] === "unsafe" && b[1] === "safe",
  unreadable: (a, b) => a[1] === "unreadable" || b[1] === "unreadable",
  garbage: (a, b) => [a, b].some((x) => x[1] === "safe" && !x[2]),
};

function describe(i, j) {
  if (i === j) return "The same cell twice: choose another one to compare.";
  const found = data.pairs[Math.min(i, j) + "-" + Math.max(i, j)];
  const [unsafe, safe] =
    i < j ? [found.to_unsafe, found.to_safe] : [found.to_safe, found.to_unsafe];
  const n = found.both_safe + found.both_unsafe + found.to_unsafe + found.to_safe;
  const p = found.p < 0.0001 ? "< 0.0001" : "= " + found.p.toFixed(4);
  return (
    `${n} prompts with two readable verdicts: ${unsafe} became unsafe, ${safe} became safe, ` +
    `${found.both_unsafe} unsafe in both, ${found.both_safe} safe in both. ` +
    `McNemar's exact two-sided p ${p}.` +
    (found.unread ? ` ${found.unread} pairs with an unreadable verdict are left out.` : "")
  );
}

function show() {
  const i = Number(left.value);
  const j = Number(right.value);
  const [a, b] = [data.cells[i].answers, data.cells[j].answers];
  const word = search.value.trim().toLowerCase();
  counts.textContent = describe(i, j);
  document.getElementById("left-name").textContent = data.cells[i].label;
  document.getElementById("right-name").textContent = data.cells[j].label;
  rows.replaceChildren();
  data.prompts.forEach((prompt, place) => {
    const [one, two] = [a[place], b[place]];
    if (!one || !two || !keep[filter.value](one, two)) return;
    const said = prompt + data.texts[one[0]] + data.texts[two[0]];
    if (word && !said.toLowerCase().includes(word)) return;
    const row = element("tr");
    row.append(element("td", "prompt", prompt), answer(one), answer(two));
    rows.append(row);
  });
  document.getElementById("shown").textContent = rows.children.length + " shown";
}

data.cells.forEach((cell, place) => {
  left.append(new Option(cell.label, place));
  right.append(new Option(cell.label, place));
});
right.value = Math.min(1, data.cells.length - 1);
document.getElementById("controls").hidden = false;
for (const control of [left, right, filter]) control.addEventListener("change", show);
search.addEventListener("input", show);
document.getElementById("swap").addEventListener("click", () => {
  [left.value, right.value] = [right.value, left.value];
  show();
});
show();
