// Paired answers of two cells. Text enters the page as text nodes only, never as markup. What is
// chosen stands in the address, so that a link leads back to it.
if (document.getElementById("answers")) compare();

function compare() {
  const data = JSON.parse(document.getElementById("answers").textContent);
  const names = ["left", "right", "filter", "category", "search"];
  const [left, right, filter, category, search] = names.map((n) => document.getElementById(n));
  const rows = document.getElementById("answer-pairs");
  const place = "#side-by-side?";
  let shown = [];

  const keep = {
    all: () => true,
    flipped: (a, b) => a[1] !== b[1],
    unsafe: (a, b) => a[1] === "safe" && b[1] === "unsafe",
    safe: (a, b) => a[1] === "unsafe" && b[1] === "safe",
    unreadable: (a, b) => a[1] === "unreadable" || b[1] === "unreadable",
    garbage: (a, b) => [a, b].some((x) => x[1] === "safe" && !x[2]),
  };

  function element(tag, className, text) {
    const made = document.createElement(tag);
    if (className) made.className = className;
    if (text !== undefined) made.textContent = text;
    return made;
  }

  function answer([number, verdict, refused, categories]) {
    const cell = element("td");
    cell.append(element("span", "verdict " + verdict, [verdict, ...categories].join(" ")));
    if (refused) cell.append(element("span", "verdict refused", "refusal"));
    cell.append(element("div", "answer", data.texts[number]));
    return cell;
  }

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
    const [i, j] = [Number(left.value), Number(right.value)];
    const [a, b] = [data.cells[i].answers, data.cells[j].answers];
    const word = search.value.trim().toLowerCase();
    document.getElementById("flips").textContent = describe(i, j);
    document.getElementById("left-name").textContent = data.cells[i].label;
    document.getElementById("right-name").textContent = data.cells[j].label;
    shown = data.prompts.flatMap((prompt, number) => {
      const [one, two] = [a[number], b[number]];
      if (!one || !two || !keep[filter.value](one, two)) return [];
      if (category.value && ![one, two].some((x) => x[3].includes(category.value))) return [];
      const said = prompt + data.texts[one[0]] + data.texts[two[0]];
      return word && !said.toLowerCase().includes(word) ? [] : [[prompt, one, two]];
    });
    rows.replaceChildren(
      ...shown.map(([prompt, one, two]) => {
        const row = element("tr");
        row.append(element("td", "prompt", prompt), answer(one), answer(two));
        return row;
      })
    );
    document.getElementById("shown").textContent = shown.length + " shown";
  }

  function remember() {
    const chosen = { left: data.cells[left.value].key, right: data.cells[right.value].key };
    for (const [name, control] of [["filter", filter], ["category", category], ["search", search]])
      if (control.value && control.value !== "all") chosen[name] = control.value;
    history.replaceState(null, "", place + new URLSearchParams(chosen));
  }

  function recall() {
    if (!location.hash.startsWith(place)) return;
    const chosen = new URLSearchParams(location.hash.slice(place.length));
    for (const side of [left, right]) {
      const number = data.cells.findIndex((cell) => cell.key === chosen.get(side.id));
      if (number >= 0) side.value = number;
    }
    for (const control of [filter, category, search]) {
      control.value = chosen.get(control.id) ?? control.value;
      if (control.selectedIndex === -1) control.selectedIndex = 0;
    }
    document.getElementById("side-by-side").scrollIntoView();
  }

  function quoted(text) {
    // A spreadsheet takes what begins like a formula for one.
    const safe = /^\s*[=+\-@]/.test(text) ? "'" + text : text;
    return '"' + safe.replaceAll('"', '""') + '"';
  }

  function save() {
    const sides = [left, right].map((side) => data.cells[side.value].label);
    const heads = ["prompt", ...sides.flatMap((name) => [name, name + ": verdict"])];
    const lines = shown.map(([prompt, ...both]) => [
      prompt,
      ...both.flatMap((x) => [data.texts[x[0]], [x[1], ...x[3]].join(" ")]),
    ]);
    const text = [heads, ...lines].map((line) => line.map(quoted).join(",")).join("\n") + "\n";
    const link = element("a");
    link.href = URL.createObjectURL(new Blob([text], { type: "text/csv" }));
    link.download = "answers.csv";
    link.click();
    URL.revokeObjectURL(link.href);
  }

  data.cells.forEach((cell, number) => {
    left.append(new Option(cell.label, number));
    right.append(new Option(cell.label, number));
  });
  for (const name of data.categories) category.append(new Option(name, name));
  category.parentElement.hidden = !data.categories.length;
  right.value = Math.min(1, data.cells.length - 1);
  document.getElementById("controls").hidden = false;
  recall();
  function changed() {
    remember();
    show();
  }
  for (const control of [left, right, filter, category]) control.addEventListener("change", changed);
  search.addEventListener("input", changed);
  document.getElementById("save").addEventListener("click", save);
  document.getElementById("swap").addEventListener("click", () => {
    [left.value, right.value] = [right.value, left.value];
    changed();
  });
  show();
}
