"""The page of every kind of sweep: no id twice, every link leads somewhere, and in a real browser
its tables stand and its controls do what they say."""

import io
import json
import re
from collections import Counter
from html.parser import HTMLParser

import pandas as pd
import pytest
from browser import CHROMIUM, browser
from summaries import (
    ablation_sweep,
    comparison_sweep,
    gaps_sweep,
    histories,
    orders_sweep,
    page_of,
    samples,
    sweep,
)

from raycib.report.measured import measured, said
from raycib.results import Results

KINDS = {
    "dose": sweep,
    "comparison": lambda: comparison_sweep(1),
    "ablation": ablation_sweep,
    "gaps": gaps_sweep,
    "orders": lambda: orders_sweep(2, 2),
}
MEASURED = {
    "settings": [
        {"setting": "learning rate", "value": "0.001", "from": "the preset"},
        {"setting": "clip", "value": "1", "from": "<i>--set", "grouped": True, "by": None},
    ],
    "rows": [
        {"name": name, "source": "s", "rows": 160, "left_out": 0, "cut": 0, "longest": 91,
         "limit": 128, "max_tokens": 0}
        for name in ("task", "<b>held out")
    ],
    "judge": {"name": "world:guard", "protected": True, "targets": ["q", "v"],
              "unread": {"no verdict": 2, "cut": 1},
              "profiles": [{"language": "en", "read": 260}]},
}  # fmt: skip


class Elements(HTMLParser):
    """Ids, links within the page and references within drawings, in the order of the page."""

    def __init__(self):
        super().__init__()
        self.ids, self.links = [], []

    def handle_starttag(self, tag, attrs):
        for name, value in attrs:
            value = value or ""
            if name == "id":
                self.ids.append(value)
            elif name in ("href", "xlink:href") and value.startswith("#"):
                self.links.append(value[1:])
            elif name == "for":
                self.links.append(value)
            elif name in ("style", "clip-path"):
                self.links += re.findall(r"url\(#([^)]+)\)", value)

    handle_startendtag = handle_starttag


@pytest.fixture(scope="module", params=KINDS)
def page(request, tmp_path_factory):
    """(kind, file) of a report that also says how it was measured."""
    summary = KINDS[request.param]() | MEASURED
    file = tmp_path_factory.mktemp(request.param) / "report.html"
    file.write_text(page_of(summary, samples(summary, 40), histories(summary)), encoding="utf-8")
    return request.param, file


@pytest.fixture(scope="module")
def chromium(tmp_path_factory):
    if not CHROMIUM:
        pytest.skip("no Chromium here (Debian: apt-get install chromium)")
    with browser(tmp_path_factory.mktemp("profile")) as tab:
        yield tab


def test_no_id_stands_twice_and_every_reference_has_one(page):
    elements = Elements()
    elements.feed(page[1].read_text(encoding="utf-8"))
    assert [name for name, count in Counter(elements.ids).items() if count > 1] == []
    assert elements.links and set(elements.links) <= set(elements.ids)


def test_no_table_loses_a_row_when_the_scripts_run(page, chromium):
    """Tables as the file has them against tables as they stand in the browser."""
    kind, file = page
    chromium.open(file)
    rows = "[...{}.querySelectorAll('section:not(#side-by-side) table')].map(t => t.rows.length)"
    text = "new DOMParser().parseFromString({}, 'text/html')"
    written = chromium.run(rows.format(text.format(json.dumps(file.read_text(encoding="utf-8")))))
    assert len(written) > 3 and chromium.run(rows.format("document")) == written
    assert chromium.complaints == []
    if kind == "comparison":
        shown = "[...document.querySelectorAll('#pairs td')].map(c => c.textContent)"
        assert any("0.0001" in cell for cell in chromium.run(shown))


@pytest.mark.parametrize("width", [1200, 400])
def test_a_page_is_no_wider_than_its_window_and_no_text_lies_on_another(page, chromium, width):
    chromium.open(page[1], width)
    chromium.run("document.querySelectorAll('details').forEach(d => { d.open = true; })")
    assert chromium.run("document.documentElement.scrollWidth") <= width
    assert chromium.run(OVERLAPS) == []
    lines = "[...document.querySelectorAll({})].map(e => {})"
    widths = lines.format("'.wide td.long'", "e.clientWidth")
    assert min(chromium.run(widths), default=118) >= 118, "no name has a line for each of its words"
    broken = lines.format("'.option'", "e.getClientRects().length")
    assert set(chromium.run(broken)) <= {1}


def test_two_cells_are_chosen_compared_exchanged_and_searched(page, chromium):
    """Each count against the answers themselves, which the page holds as data."""
    chromium.open(page[1])
    data = chromium.run("JSON.parse(document.getElementById('answers').textContent)")
    assert _chosen(chromium) == (data["cells"][0]["label"], data["cells"][1]["label"])
    chromium.choose("right", "2")
    one, two = (data["cells"][place]["answers"] for place in (0, 2))
    shared = [place for place in one if place in two]
    assert _shown(chromium) == len(shared) == 40
    for name, kept in KEPT.items():
        chromium.choose("filter", name)
        assert _shown(chromium) == sum(kept(one[p], two[p]) for p in shared), name
        assert chromium.run("document.querySelectorAll('#answer-pairs tr').length") == _shown(
            chromium
        )
    chromium.choose("filter", "unsafe")
    flips = data["pairs"]["0-2"]
    assert f"{flips['to_unsafe']} became unsafe, {flips['to_safe']} became safe" in _flips(chromium)
    chromium.run("document.getElementById('swap').click()")
    assert _chosen(chromium) == (data["cells"][2]["label"], data["cells"][0]["label"])
    assert f"{flips['to_safe']} became unsafe, {flips['to_unsafe']} became safe" in _flips(chromium)
    chromium.choose("filter", "all")
    chromium.choose("search", "THING 7 ", "input")
    assert _shown(chromium) == 1
    chromium.choose("search", "no such words", "input")
    assert _shown(chromium) == 0
    chromium.choose("left", "0")
    assert "The same cell twice" in _flips(chromium)
    assert chromium.complaints == []


def test_what_is_chosen_stands_in_the_address_and_a_link_leads_back(page, chromium):
    chromium.open(page[1])
    chromium.choose("right", "2")
    chromium.choose("filter", "flipped")
    chromium.choose("search", "thing", "input")
    chosen, shown, address = _chosen(chromium), _shown(chromium), chromium.run("location.hash")
    chromium.open(page[1])
    assert _shown(chromium) == 40, "another visit begins anew"
    chromium.open(page[1], after=address)
    assert (_chosen(chromium), _shown(chromium)) == (chosen, shown)
    assert chromium.run("document.getElementById('filter').value") == "flipped"
    chromium.open(page[1], after="#side-by-side?left=gone&filter=gone")
    assert _shown(chromium) == 40, "what is not there is as if it were not said"
    assert chromium.complaints == []


def test_a_category_keeps_what_the_judge_named_so(page, chromium):
    chromium.open(page[1])
    data = chromium.run("JSON.parse(document.getElementById('answers').textContent)")
    one, two = (data["cells"][place]["answers"] for place in (0, 1))
    assert data["categories"] == ["S1", "S2"]
    chromium.choose("category", "S2")
    shared = [place for place in one if place in two]
    assert 0 < _shown(chromium) == sum("S2" in one[p][3] + two[p][3] for p in shared) < 40


def test_answers_that_are_shown_are_saved_as_csv(page, chromium):
    """Read back by pandas; what begins like a formula does not."""
    chromium.open(page[1])
    chromium.choose("filter", "unsafe")
    saved = chromium.run(
        "new Promise((done) => { URL.createObjectURL = (blob) => "
        "{ blob.text().then(done); return 'data:,'; };"
        "document.getElementById('save').click(); })"
    )
    frame = pd.read_csv(io.StringIO(saved))
    assert len(frame) == _shown(chromium) > 0
    left, right = _chosen(chromium)
    assert [*frame.columns] == ["prompt", left, f"{left}: verdict", right, f"{right}: verdict"]
    assert {verdict.split()[0] for verdict in frame[f"{right}: verdict"]} == {"unsafe"}


def test_a_column_sorts_its_table_both_ways(page, chromium):
    chromium.open(page[1])
    column = """((click) => { const t = document.querySelector('#cells table');
      const place = [...t.tHead.rows[0].cells].findIndex((c) => /^(HRR|Harm)/.test(c.textContent));
      if (click) t.tHead.rows[0].cells[place].querySelector('button').click();
      return [...t.tBodies[0].rows].map((r) => r.cells[place]?.textContent.trim() ?? ""); })"""
    before = chromium.run(f"{column}(false)")
    up, down = chromium.run(f"{column}(true)"), chromium.run(f"{column}(true)")

    def numbers(texts):
        return [float(text.split()[0]) for text in texts if text and text[0].isdigit()]

    assert len(numbers(before)) > 3
    assert numbers(up) == sorted(numbers(before))
    assert numbers(down) == sorted(numbers(before), reverse=True)
    assert sorted(up) == sorted(before), "no row is lost"
    filled = len(numbers(up))
    assert not numbers(up[filled:]), "what has no number is at the end"


def test_it_prints_in_at_most_eight_pages_and_in_the_dark_it_is_dark(page, chromium):
    chromium.open(page[1])
    pages = chromium.printed()
    assert 1 <= pages <= 8, pages
    colour = "getComputedStyle(document.body).backgroundColor"
    assert chromium.run(colour) == "rgb(255, 255, 255)"
    chromium.dark(True)
    try:
        red, green, blue = map(int, re.findall(r"\d+", chromium.run(colour)))
        assert max(red, green, blue) < 60
        assert chromium.run("getComputedStyle(document.querySelector('figure svg')).backgroundColor"
                            ) == "rgb(255, 255, 255)"  # fmt: skip
    finally:
        chromium.dark(False)


def test_no_table_is_cut_on_paper(page, chromium):
    """A4 less its margins is 703 pixels; a browser shrinks a page by up to 1.25 to fit it."""
    chromium.open(page[1], 703)
    chromium.on_paper(True)
    try:
        wide = "[...document.querySelectorAll('.wide')]"
        assert set(chromium.run(f"{wide}.map(e => getComputedStyle(e).overflowX)")) == {"visible"}
        widths = chromium.run(f"{wide}.map(e => e.firstChild.scrollWidth)")
        assert 0 < max(widths) <= 1.25 * 703
    finally:
        chromium.on_paper(False)


def test_how_it_was_measured_stands_on_every_page(page):
    text = page[1].read_text(encoding="utf-8")
    part = text[text.index('<section id="measured">') : text.index('<section id="provenance">')]
    for words in ("<td>learning rate</td>", ">0.001</td>", "<td>not given</td>", "<td>yes</td>",
                  "&lt;i&gt;--set", "targets</dt><dd>q, v", "unread: no verdict</dt><dd>2",
                  "&lt;b&gt;held out",
                  "<caption>Profiles</caption>", "<h3>Judge</h3>"):  # fmt: skip
        assert words in part


def test_a_summary_that_says_nothing_of_it_has_no_such_part():
    assert measured(Results(sweep="s", cells=[], settings=[], rows=[])) == []
    assert [said(v) for v in (None, float("nan"), float("inf"), False, [], 0.0)] == [
        "not given", "not given", "infinite", "no", "none", "0"
    ]  # fmt: skip


KEPT = {
    "all": lambda a, b: True,
    "flipped": lambda a, b: a[1] != b[1],
    "unsafe": lambda a, b: (a[1], b[1]) == ("safe", "unsafe"),
    "safe": lambda a, b: (a[1], b[1]) == ("unsafe", "safe"),
    "unreadable": lambda a, b: "unreadable" in (a[1], b[1]),
    "garbage": lambda a, b: any(x[1] == "safe" and not x[2] for x in (a, b)),
}
"""What each filter of the page keeps of [number, verdict, refused] of both."""

OVERLAPS = """(() => {
  const found = [], seen = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const node = walker.currentNode, parent = node.parentElement;
    if (!node.textContent.trim() || parent.closest("script, svg, select, .scroll")) continue;
    const range = document.createRange();
    range.selectNodeContents(node);
    const box = range.getBoundingClientRect();
    if (box.width && box.height) seen.push([box, node.textContent.trim().slice(0, 40), parent]);
  }
  seen.forEach(([a, one, first], i) => seen.slice(i + 1, i + 40).forEach(([b, other, second]) => {
    const across = Math.min(a.right, b.right) - Math.max(a.left, b.left);
    const up = Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top);
    if (across > 1 && up > 3 && first !== second && !first.contains(second)
        && !second.contains(first)) found.push(one + " | " + other);
  }));
  return found.slice(0, 5);
})()"""
"""Pairs of texts, near each other in the page, whose boxes overlap."""


def _shown(chromium):
    return int(chromium.run("document.getElementById('shown').textContent").split()[0])


def _flips(chromium):
    return chromium.run("document.getElementById('flips').textContent")


def _chosen(chromium):
    names = "['left-name', 'right-name'].map(n => document.getElementById(n).textContent)"
    return tuple(chromium.run(names))
