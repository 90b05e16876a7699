"""The page of a sweep under way: it says so, and it is loaded again without losing the reader."""

import time
from datetime import UTC, datetime

import pytest
from browser import CHROMIUM, Page, browser
from summaries import histories, reported, samples, sweep

from raycib.report.page import CURVES, Unfinished, draw, page
from raycib.runtime.live import LEAST_S, SHARE, Pace

UNDER_WAY = Unfinished("2026-11-26T08:44:14+00:00", "2 of 6 cells have scores; training", "more", 7)


def made(unfinished):
    summary = sweep()
    report = reported(summary, samples(summary, 60), histories(summary))
    return page(report, samples(summary, 60), draw(report), unfinished)


def test_an_unfinished_page_says_so_first_and_links_to_no_files():
    text = made(UNDER_WAY)
    assert "2 of 6 cells have scores" in text and text.index('id="unfinished"') < text.index("<h1>")
    assert " download>" not in text
    finished = made(None)
    assert " download>" in finished
    assert "nfinished" not in finished and "sessionStorage" not in finished


def test_curves_can_be_drawn_alone():
    summary = sweep()
    report = reported(summary, samples(summary, 12), histories(summary))
    assert draw(report, only=CURVES) == {CURVES: draw(report)[CURVES]}


def loaded_again(tab: Page) -> bool:
    """Whether the page is another one; in the midst of going there nobody answers."""
    try:
        return tab.run("window.here !== true && document.readyState === 'complete'")
    except AssertionError as error:
        if "navigated" not in str(error):
            raise
        return False


@pytest.mark.skipif(not CHROMIUM, reason="no Chromium here")
def test_the_reader_stays_where_they_were(tmp_path):
    file = tmp_path / "report.html"
    now = datetime.now(UTC).isoformat()
    file.write_text(made(UNDER_WAY._replace(when=now, again_s=5)))
    with browser(tmp_path / "profile") as tab:
        tab.open(file, 800)
        tab.run("document.querySelector('#provenance details').open = true")
        tab.run("document.querySelector('#cells th button').click()")
        tab.run("scrollTo(0, 1234); window.here = true")
        file.write_text(made(UNDER_WAY._replace(when=now, again_s=None, told="all of it")))
        until = time.monotonic() + 30
        while not loaded_again(tab):
            assert time.monotonic() < until
            time.sleep(0.3)
        assert "all of it" in tab.run("document.getElementById('unfinished').textContent")
        assert tab.run("Math.round(scrollY)") == 1234
        assert tab.run("document.querySelector('#provenance details').open")
        assert tab.run("document.querySelector('#cells th').ariaSort") == "ascending"
        assert tab.complaints == []


def test_the_dearer_it_is_the_more_seldom_it_is_done():
    pace, done = Pace(), []

    def work():
        done.append(sum(n * n for n in range(400_000)))

    pace.do(work)  # what it imports is needed at the end anyway
    assert pace.next_s == LEAST_S
    pace.do(work)
    assert len(done) == 1, "not due"
    pace.due = 0
    pace.do(work)
    assert pace.cost and pace.next_s == max(LEAST_S, pace.cost / SHARE)
    pace.due = 0
    with pytest.raises(ZeroDivisionError):
        pace.do(lambda: print(1 // 0))
    assert pace.due > 0, "one that failed is not tried at once"
