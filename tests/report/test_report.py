"""The report: claims from the data, warnings in sight, and nothing in it that acts."""

import base64
import hashlib
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser

import pytest
from summaries import (
    HOSTILE,
    ablation_sweep,
    comparison_sweep,
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
from raycib.report.scores import aligned_scores
from raycib.report.side_by_side import comparison, flips
from raycib.report.table import shown
from raycib.studies.strength.claims import claims
from raycib.studies.strength.correlation_table import COLUMNS, correlation_table


@pytest.fixture(scope="module")
def page():
    summary = sweep()
    return page_of(summary, samples(summary), histories(summary))


def judged(summary):
    found = claims(to_frame(typed(summary)), aligned_scores(typed(summary)))
    return {claim.text.split(",")[0].split(":")[0]: claim for claim in found}


class Tags(HTMLParser):
    """Every element of a page with its attributes, and the text of its scripts."""

    def __init__(self):
        super().__init__()
        self.seen, self.scripts, self.open = [], [], False

    def handle_starttag(self, tag, attrs):
        self.seen.append((tag, dict(attrs)))
        if tag == "script":
            self.scripts.append("")
            self.open = True

    def handle_endtag(self, tag):
        self.open = self.open and tag != "script"

    def handle_data(self, data):
        if self.open:
            self.scripts[-1] += data


def parsed(html):
    tags = Tags()
    tags.feed(html)
    return tags


def test_the_exhibits_are_whole_files_and_the_same_each_time(tmp_path):
    summary = sweep()
    given = (summary, samples(summary), histories(summary))
    files = written(*given, tmp_path / "new")
    tables = [f"{stem}.{kind}" for stem in ("table3", "correlations") for kind in TABLE_FILES]
    drawn = [f"{stem}.{kind}" for stem in ("figure2", "curves") for kind in FIGURE_FILES]
    names = {file.name for file in files}
    assert names == {*tables, *drawn, "cells.csv", "report.html"}
    shown = parsed((tmp_path / "new" / "report.html").read_text(encoding="utf-8")).seen
    assert {attrs["href"] for _, attrs in shown if "download" in attrs} == names - {"report.html"}
    before = {file: file.read_bytes() for file in files}
    written(*given, tmp_path / "new")
    assert {file: file.read_bytes() for file in files} == before
    assert sorted((tmp_path / "new").iterdir()) == sorted(files)


def test_what_an_earlier_run_wrote_and_this_one_does_not_is_removed(tmp_path):
    """Its numbers are of other cells or other labels. What a person put there stays."""
    summary = sweep(failed=False)
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
def test_a_browser_runs_the_shipped_script_and_no_other(tmp_path):
    summary = sweep()
    (tmp_path / "report.html").write_text(page_of(summary, samples(summary), histories(summary)))
    shown = subprocess.run(
        ["chromium", "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom",
         f"--user-data-dir={tmp_path / 'profile'}", (tmp_path / "report.html").as_uri()],
        capture_output=True, text=True, timeout=120,
    ).stdout  # fmt: skip
    assert "60 shown" in shown and "became unsafe" in shown
    assert "owned" not in parsed(shown).scripts[1]
    assert "&lt;script&gt;document.body" in shown  # shown as text in the table
    assert not [tag for tag, _ in parsed(shown).seen if tag == "img"]


def test_claims_hold_or_fail_by_the_data():
    found = judged(sweep(failed=False))
    assert found["The harmful response rate falls as λ grows"].holds is True
    assert found["I(Z;C) rises with every step of λ > 0"].holds is False
    assert found["Benign fine-tuning erodes safety"].holds is True
    assert "3 of 3 seeds" in found["The harmful response rate falls as λ grows"].evidence
    loss = found["The task loss at the largest λ is at most 1.25 times the one at the smallest λ "
                 "> 0 (the paper's worst"]  # fmt: skip
    assert loss.holds is False


def test_one_seed_that_rises_is_enough_to_fail_a_claim():
    summary = sweep(failed=False)
    summary["cells"][-1]["scores"]["hrr"] = rate(0.9, 260)
    claim = judged(summary)["The harmful response rate falls as λ grows"]
    assert claim.holds is False and "2 of 3 seeds" in claim.evidence


def test_a_seed_with_a_hole_is_not_judged():
    claim = judged(sweep(failed=True))["The harmful response rate falls as λ grows"]
    assert claim.holds is True and "2 of 2 seeds" in claim.evidence
    assert "1 of 3 seeds lack a strength" in claim.evidence


def test_nothing_is_claimed_where_nothing_was_measured():
    summary = sweep()
    for cell in summary["cells"]:
        cell |= {"failed": "stopped", "scores": None}
    assert claims(to_frame(typed(summary)), aligned_scores(typed(summary))) == []
    assert "0 of 15 cells finished" in reported(summary).headline


def test_the_one_strength_of_a_sweep_is_told_once():
    summary = sweep(failed=False)
    assert reported(summary).headline.count("at λ =") == 2
    strengths = sorted({cell["strength"] for cell in summary["cells"]})[:2]
    summary["cells"] = [one for one in summary["cells"] if one["strength"] in strengths]
    assert reported(summary).headline.count(f"at λ = {strengths[1]:g}") == 1


def test_answers_that_are_harmful_and_refusals_are_counted():
    """Of 260: 100 harmful, 150 refusals, 14 neither are 264, so that 4 are both. Where 2 have no
    verdict, 100 of 258 harmful, 150 of 260 refusals and 14 neither: at least 4, which all could be
    refusals among those."""
    summary = sweep(failed=False)
    scores = summary["cells"][0]["scores"]
    one = lambda k, n, unread=0: rate(k / n, n, unread)  # noqa: E731
    scores |= {"hrr": one(100, 260), "refusal_rate": one(150, 260), "incoherent_rate": one(14, 260)}
    for cell in summary["cells"][1:]:
        cell["scores"]["hrr"] |= {"unread": 0}
        cell["scores"] |= {"incoherent_rate": one(0, 260), "refusal_rate": one(20, 260)}
        cell["scores"]["hrr"] |= {"value": 0.5, "n": 260}
    told = lambda: [t for t in warned(summary) if "count in both rates" in t]  # noqa: E731
    [text] = told()
    assert text.startswith("4 answers to harmful prompts, in 1 cells (at most 4 of 260, in LoRA")
    scores |= {"hrr": one(100, 258, 2), "incoherent_rate": one(14, 258, 2)}
    [text] = told()
    assert text.startswith("At least 4 answers")
    scores["incoherent_rate"] = one(10, 258, 2)
    assert told() == []


def test_what_the_data_call_for_is_a_warning():
    summary = sweep() | {"notes": ["9 of 20 answers of --harmful-data open as refusals"]}
    assert "Of the data: 9 of 20 answers of --harmful-data open as refusals." in warned(summary)


def test_a_sound_sweep_needs_no_warning_but_the_known_one():
    summary = sweep(failed=False)
    for cell in summary["cells"]:
        cell["scores"]["hrr"] |= {"n": 260, "unread": 0}
        cell["scores"]["cosine"] = 0.95
        cell["adapter"] = cell["key"]
    assert warned(summary) == []


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda s: s["judge"].update(protected=False), "judge is not protected"),
        (lambda s: s["judge"].pop("protected"), "judge is not protected"),
        (lambda s: [c.update(adapter="ab") for c in s["cells"][:2]], "same weights, byte for byte"),
        (lambda s: s["cells"][0]["scores"].update(negative_cosine=0.95), "nearly one vector"),
        (lambda s: s["cells"][0]["scores"].update(incoherent_rate=rate(0.2, 260)), "neither"),
        (lambda s: s["cells"][0]["scores"].update(accuracy=rate(1, 150)), "accuracy lost up to 10"),
        (lambda s: s.update(damaged=["stages/ab: sha256 differs"]), "1 stored results were found"),
        (lambda s: s.update(cells=[c for c in s["cells"] if c["seed"] == 0]), "One seed: no"),
        (
            lambda s: s["cells"][0]["scores"].update(at_limit={"held_out": 0, "held_out_n": 4}),
            "A task has 4 held-out rows",
        ),
        (lambda s: None, "OutOfMemoryError"),
        (lambda s: None, "3 verdicts of the judge could not be read"),
        (lambda s: None, "does not mean closer"),
    ],
)
def test_what_makes_numbers_doubtful_is_said(change, words):
    summary = sweep()
    change(summary)
    assert any(words in text for text in warned(summary))


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


def said(*verdicts):
    return [{"prompt": f"p{i}", "answer": "", "verdict": v} for i, v in enumerate(verdicts)]


def test_flips_are_paired_on_prompts_and_unreadable_verdicts_are_no_verdicts():
    found = flips(said("safe", "safe", "unsafe", "safe"),
                  said("unsafe", "safe", "safe", "unreadable", "unsafe"))  # fmt: skip
    assert found == {
        "both_safe": 1, "both_unsafe": 0, "to_unsafe": 1, "to_safe": 1, "unread": 1, "p": 1.0
    }  # fmt: skip


def test_a_prompt_asked_twice_is_paired_in_order():
    twice = [{"prompt": "p", "answer": a, "verdict": "safe"} for a in "ab"]
    held = comparison({"aligned": twice, "k": twice}, {"aligned": "before", "k": "after"})
    assert held["prompts"] == ["p", "p"] and held["pairs"]["0-1"]["both_safe"] == 2


def test_correlations_stand_by_seed_over_means_and_pooled_for_both_measures():
    table = shown(correlation_table(to_frame(typed(sweep(failed=False)))), COLUMNS)
    part = table[(table["Measure"] == "I(Z;C)") & (table["Over"] == "λ\u00a0>\u00a00")]
    assert part["Group"].tolist() == ["seed 0", "seed 1", "seed 2", "pooled over seeds",
                                      "seed means"]  # fmt: skip
    assert part["n"].tolist() == ["4", "4", "4", "12", "4"]
    assert set(table["Measure"]) == {"I(Z;C)", "I(Z;C), last prompt token"}


def test_every_cell_can_be_traced(page):
    summary = sweep()
    for cell in summary["cells"]:
        assert cell["key"] in page
    assert summary["cells"][0]["task_data"]["digest"] in page and "2.13.0" in page


def test_a_comparison_writes_its_own_exhibits_the_same_each_time(tmp_path):
    summary = comparison_sweep(1)
    given = (summary, samples(summary, 20), histories(summary))
    files = written(*given, tmp_path)
    stems = ("matched_cost", "paired", "table1", "budget", "budget_curve")
    tables = [f"{stem}.{kind}" for stem in stems for kind in TABLE_FILES]
    drawn = [f"{stem}.{kind}" for stem in ("tradeoff", "budget_curve") for kind in FIGURE_FILES]
    assert {file.name for file in files} == {*tables, *drawn, "cells.csv", "report.html"}
    before = {file: file.read_bytes() for file in files}
    written(*given, tmp_path)
    assert {file: file.read_bytes() for file in files} == before


def test_an_ablation_has_figure_3_as_well(tmp_path):
    summary = ablation_sweep()
    files = written(summary, samples(summary, 20), histories(summary), tmp_path)
    assert {"bars.png", "bars.svg", "tradeoff.svg", "paired.csv"} <= {file.name for file in files}
    page = (tmp_path / "report.html").read_text()
    assert "Negatives chosen by similarity beat random ones" in page and 'id="curves"' in page


def test_the_page_of_a_comparison_holds_its_sections_and_no_dose():
    summary = comparison_sweep(1)
    page = page_of(summary, samples(summary, 20), histories(summary))
    sections = re.findall(r'<section[^>]* id="([a-z-]+)"|<section id="([a-z-]+)"', page)
    assert [a or b for a, b in sections] == [
        "warnings", "figure", "claims", "table", "cost", "budget", "pairs", "cells", "side-by-side",
        "measured",
        "provenance",
    ]  # fmt: skip
    assert "λ" not in page and "CIB, strength = 5, seed 0" in page
    assert "chosen on the same prompts" in page


def test_a_hostile_label_is_text_on_the_page_of_a_comparison():
    summary = comparison_sweep(1, labels={"cib": HOSTILE[0], "kl": HOSTILE[1]})
    page = page_of(summary, samples(summary, 20), {})
    tags = parsed(page)
    assert [attrs for tag, attrs in tags.seen if tag == "script"] == [
        {"type": "application/json", "id": "answers"}, {}
    ]  # fmt: skip
    assert not [tag for tag, _ in tags.seen if tag == "img"]
    assert "&lt;script&gt;document.body" in page


@pytest.mark.parametrize("kept", ["lora", "cib", "nothing"])
def test_a_comparison_with_holes_has_a_report(kept):
    summary = comparison_sweep(1) | {"aligned": {"scores": None}}
    for cell in summary["cells"]:
        if cell["method"] != kept:
            cell |= {"failed": "stopped", "scores": None}
    page = page_of(summary, {}, {})
    assert "stopped" in page and 'id="side-by-side"' not in page


def test_equal_answers_are_held_once():
    same = [{"prompt": f"p{i}", "answer": "sorry", "verdict": "safe"} for i in range(50)]
    held = comparison({"a": same, "b": same}, {"a": "a", "b": "b"})
    assert held["texts"] == ["sorry"]
    assert {number for cell in held["cells"] for number, *_ in cell["answers"].values()} == {0}


def test_many_different_answers_still_fit_a_page():
    """80 cells of 260 different answers of 100 characters: below 6 MB, 3,160 pairs counted."""
    given = {
        f"k{cell}": [
            {"prompt": f"how do i make thing {i} ?", "answer": f"{cell} {i} ".ljust(100, "x"),
             "verdict": "unsafe" if (cell * i) % 7 < 3 else "safe", "refused": False}
            for i in range(260)
        ]
        for cell in range(80)
    }  # fmt: skip
    held = comparison(given, {key: f"CIB, strength = 5, seed {key}" for key in given})
    assert len(held["pairs"]) == 80 * 79 / 2 and len(held["texts"]) == 80 * 260
    assert len(json.dumps(held, separators=(",", ":"))) < 4e6


@pytest.mark.parametrize(
    ("methods", "words"),
    [
        (("lora", "cib"), ["up to 4"]),
        (("lora", "cib", "safe_lora"), ["up to 4", "Only one strength was tried of Safe LoRA:"]),
        (("lora", "safe_lora", "salora"), []),
    ],
)
def test_a_comparison_warns_of_what_choosing_strengths_does(methods, words):
    summary = comparison_sweep(1)
    summary["cells"] = [c for c in summary["cells"] if c["method"] in methods]
    found = warned(summary)
    said_so = [text for text in found if "strength was tried" in text or "flatters" in text]
    assert len(said_so) == len(words)
    assert all(word in text for word, text in zip(words, said_so, strict=True))
