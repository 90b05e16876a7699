"""The page of a lambda grid: whole files, and nothing in it that acts."""

import base64
import hashlib
import json
import re
import shutil
import subprocess

import pytest
from pages import parsed
from summaries import (
    HOSTILE,
    histories,
    page_of,
    rate,
    reported,
    samples,
    sweep,
    typed,
    warned,
    written,
)

from raycib.report.corrected import with_corrected
from raycib.report.frame import to_frame
from raycib.report.page import FIGURE_FILES, TABLE_FILES, write_report


@pytest.fixture(scope="module")
def exhibits(tmp_path_factory):
    """The files of a lambda grid; nobody changes them."""
    summary = sweep()
    folder = tmp_path_factory.mktemp("exhibits")
    return written(summary, samples(summary), histories(summary), folder)


@pytest.fixture(scope="module")
def page(exhibits):
    [file] = [one for one in exhibits if one.name == "report.html"]
    return file.read_text(encoding="utf-8")


def test_the_exhibits_are_whole_files_and_the_same_each_time(exhibits, page, tmp_path):
    tables = [f"{stem}.{kind}" for stem in ("table3", "correlations") for kind in TABLE_FILES]
    drawn = [f"{stem}.{kind}" for stem in ("figure2", "curves") for kind in FIGURE_FILES]
    names = {file.name for file in exhibits}
    assert names == {*tables, *drawn, "cells.csv", "report.html"}
    shown = parsed(page).seen
    assert {attrs["href"] for _, attrs in shown if "download" in attrs} == names - {"report.html"}
    summary = sweep()
    again = written(summary, samples(summary), histories(summary), tmp_path)
    assert sorted(tmp_path.iterdir()) == sorted(again)
    assert {file.name: file.read_bytes() for file in again} == {
        file.name: file.read_bytes() for file in exhibits
    }


def test_what_an_earlier_run_wrote_and_this_one_does_not_is_removed(tmp_path):
    """Its numbers are of other cells or other labels. What a person put there stays."""
    summary = sweep(failed=False, seeds=1)
    told = {"hrr": rate(0.5, 260), "prediction_powered": rate(0.4, 260)}
    row = {"method": "LoRA", "cells": [], "labelled": 9} | told
    labels = {"labels": "l.csv", "labelled": 9, "rows": [row]}
    corrected = with_corrected(reported(summary | {"correction": labels}, None, histories(summary)))
    write_report(corrected, {}, tmp_path)
    for name in ("label_sheet.csv", "mine.png", "mine.csv"):
        (tmp_path / name).write_text("a person's")
    before = {file.name for file in tmp_path.iterdir()}
    now = {file.name for file in write_report(reported(summary), {}, tmp_path)}
    assert {"corrected.csv", "corrected.md", "corrected.tex", "curves.svg"} <= before - now
    kept = {"label_sheet.csv", "mine.png", "mine.csv"}
    assert {file.name for file in tmp_path.iterdir()} == now | kept


def test_only_the_shipped_script_may_run(page):
    tags = parsed(page)
    scripts = [attrs for tag, attrs in tags.seen if tag == "script"]
    assert scripts == [{"type": "application/json", "id": "answers"}, {}]
    digest = base64.b64encode(hashlib.sha256(tags.scripts[1].encode()).digest()).decode()
    [policy] = [a["content"] for _, a in tags.seen if "http-equiv" in a]
    assert policy.startswith("default-src 'none';") and f"script-src 'sha256-{digest}'" in policy
    assert "unsafe-inline" not in policy.split("script-src")[1]


def test_no_element_can_call_code_or_fetch_anything(page):
    for tag, attrs in parsed(page).seen:
        assert tag not in ("iframe", "object", "embed", "base", "link", "img", "form")
        assert not [name for name in attrs if name.startswith("on") or name == "src"]
        for name in ("href", "xlink:href"):
            place = attrs.get(name) or "#"
            beside = "download" in attrs and re.fullmatch(r"\w+\.[a-z]+", place)
            assert beside or place.startswith("#")


def test_hostile_text_is_text_wherever_it_comes_from():
    summary = sweep()
    summary["question"] = " ".join(HOSTILE)
    for text, cell in zip(HOSTILE, reversed(summary["cells"]), strict=False):
        cell |= {"failed": text, "scores": None}
        cell["parameters"]["note"] = text
    said = [{"prompt": t, "answer": t, "verdict": t, "refused": False} for t in HOSTILE]
    html = page_of(summary, {"aligned": said, summary["cells"][0]["key"]: said}, {})
    tags = parsed(html)
    assert [attrs for tag, attrs in tags.seen if tag == "script"] == [
        {"type": "application/json", "id": "answers"}, {}
    ]  # fmt: skip
    assert not [tag for tag, _ in tags.seen if tag == "img"]
    assert "{{ 7 * 7 }}" in html and "owned" not in tags.scripts[1]
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e]", html)
    html.encode("utf-8")
    held = json.loads(tags.scripts[0])
    answers = held["cells"][0]["answers"].values()
    assert [verdict for _, verdict, *_ in answers] == ["unreadable"] * len(HOSTILE)
    assert "=HYPERLINK" in held["texts"][list(answers)[3][0]]


@pytest.mark.skipif(not shutil.which("chromium"), reason="no chromium to open the page with")
def test_a_browser_runs_the_shipped_script_and_no_other(page, tmp_path):
    (tmp_path / "report.html").write_text(page)
    shown = subprocess.run(
        ["chromium", "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom",
         f"--user-data-dir={tmp_path / 'profile'}", (tmp_path / "report.html").as_uri()],
        capture_output=True, text=True, timeout=120,
    ).stdout  # fmt: skip
    assert "60 shown" in shown and "became unsafe" in shown
    assert "owned" not in parsed(shown).scripts[1]
    assert "&lt;script&gt;document.body" in shown  # shown as text in the table
    assert not [tag for tag, _ in parsed(shown).seen if tag == "img"]


def test_a_sweep_without_an_aligned_model_samples_or_strengths_has_a_report():
    summary = sweep() | {"aligned": {"scores": None}, "counts": {}, "timings_s": {}}
    summary["cells"] = [c for c in summary["cells"] if c["method"] == "lora"]
    html = page_of(summary, {}, {})
    assert 'id="claims"' in html and 'id="side-by-side"' not in html and 'id="answers"' not in html


def test_nothing_readable_is_no_rate():
    summary = sweep()
    for cell in summary["cells"][:3]:
        cell["scores"]["hrr"] = {"value": None, "low": None, "high": None, "n": 0, "unread": 260}
    frame = to_frame(typed(summary))
    assert frame["hrr"].isna().sum() == 4
    assert any("could not be read" in text for text in warned(summary))
    page_of(summary, {}, {})


def test_every_cell_can_be_traced(page):
    summary = sweep()
    for cell in summary["cells"]:
        assert cell["key"] in page
    assert summary["cells"][0]["task_data"]["digest"] in page and "2.13.0" in page


@pytest.mark.parametrize(
    ("n", "told"), [(1, "1 answer a cell, no harm"), (7, "by 50 points (near")]
)
def test_what_so_few_answers_cannot_tell_is_said(n: int, told: str):
    summary = sweep(failed=False, seeds=1)
    for cell in summary["cells"]:
        cell["scores"]["hrr"] = rate(0, n)
    assert told in page_of(summary)
