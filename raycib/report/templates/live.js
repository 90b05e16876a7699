// The page of a sweep under way: it is loaded again when there is a new one, and the reader stays
// where they were: the place, what is open, how tables are sorted.
{
  const banner = document.getElementById("unfinished");
  const memory = `raycib ${location.pathname}`;
  const folds = () => [...document.querySelectorAll("details")];
  const tables = () => [...document.querySelectorAll("table.sortable")];
  const sortedBy = (table) => {
    const heads = [...table.querySelectorAll("th")];
    const place = heads.findIndex((head) => head.hasAttribute("aria-sort"));
    return place < 0 ? null : [place, heads[place].getAttribute("aria-sort")];
  };
  const remember = () => sessionStorage.setItem(memory, JSON.stringify(
    { y: scrollY, open: folds().map((one) => one.open), sorted: tables().map(sortedBy) }));

  let kept = null;
  try { kept = JSON.parse(sessionStorage.getItem(memory)); } catch { /* no memory here */ }
  if (kept) {
    folds().forEach((one, n) => { one.open = kept.open[n] ?? one.open; });
    tables().forEach((table, n) => {
      const [place, side] = kept.sorted[n] ?? [];
      const head = table.querySelectorAll("th")[place];
      for (let tries = 0; head && head.getAttribute("aria-sort") !== side && tries < 2; tries++)
        head.querySelector("button").click();
    });
    addEventListener("load", () => scrollTo(0, kept.y));
  }

  const written = Date.parse(document.querySelector("#unfinished time").dateTime);
  const again = 1000 * Number(banner.dataset.again || 0);
  const opened = Date.now();
  const busy = () => document.hidden || String(getSelection()) ||
    ["INPUT", "SELECT"].includes(document.activeElement?.tagName);
  setInterval(() => {
    const age = Math.round((Date.now() - written) / 1000);
    const late = again && 1000 * age > 4 * again + 60000;
    document.getElementById("age").textContent = age < 2 ? "" :
      ` (${age < 120 ? `${age} s` : `${Math.round(age / 60)} min`} ago` +
      `${late ? ": is it still running?" : ""})`;
    const wait = late ? 60000 : Math.max(5000, again - (opened - written));
    if (again && !busy() && Date.now() - opened > wait) {
      try { remember(); } catch { /* no memory here */ }
      location.reload();
    }
  }, 1000);
}
