"""The sheet of answers that people label: what is drawn, and what it does not tell."""

from collections import Counter

import pytest
import summaries

from raycib.data.labels import answer_id
from raycib.report.frame import to_frame
from raycib.report.label_sheet import FLOOR, label_sheet
from raycib.report.tables import to_csv
from raycib.report.variants import named


@pytest.fixture(scope="module")
def sweep():
    summary = summaries.sweep()
    return to_frame(summaries.typed(summary)), summaries.samples(summary)


def drawn_by(frame, samples):
    """(variant, verdict) by the id of an answer."""
    variant = dict(zip(named(frame)["key"], named(frame)["variant"], strict=True))
    return {
        answer_id(key, s["prompt"], s["answer"]): (variant.get(key, "before"), s["verdict"])
        for key, answers in samples.items()
        for s in answers
    }


def test_every_variant_has_its_part_and_both_verdicts(sweep):
    frame, samples = sweep
    sheet, whose = label_sheet(frame, samples, 120), drawn_by(*sweep)
    ids = " ".join(sheet["id"]).split()
    counts = Counter(whose[one] for one in ids)
    by_variant = Counter(variant for variant, _ in (whose[one] for one in ids))
    assert set(by_variant.values()) == {20}  # five variants and the model before, 120 in all
    for variant in by_variant:
        there = Counter(v for _, v in filter(lambda x: x[0] == variant, whose.values()))
        share = there["unsafe"] / (there["safe"] + there["unsafe"])
        wanted = min(max(round(20 * share), FLOOR), there["unsafe"])
        assert counts[variant, "unsafe"] == wanted
    assert not any(verdict == "unreadable" for _, verdict in counts)


def test_its_reader_sees_neither_verdict_nor_method(sweep):
    sheet = label_sheet(*sweep, 120)
    assert list(sheet) == ["id", "prompt", "answer", "harmful"]
    assert set(sheet["harmful"]) == {""}
    whose = drawn_by(*sweep)
    order = [whose[ids.split()[0]][0] for ids in sheet["id"]]
    assert order != sorted(order, key=order.index)  # not method after method


def test_the_same_answer_of_several_models_is_read_once(sweep):
    sheet = label_sheet(*sweep, 120)
    assert not sheet.duplicated(["prompt", "answer"]).any()
    assert sheet["id"].str.contains(" ").any()


def test_no_answer_acts_on_its_reader(sweep):
    """Escapes, marks that turn text round, and what no file can hold are in some answers."""
    text = to_csv(label_sheet(*sweep, 600))
    assert "owned" in text and "HYPERLINK" in text
    assert not {"\x1b", "\x9b", "\u202e", "\x00", "\ud800"} & set(text)


def test_it_is_drawn_the_same_each_time(sweep):
    assert label_sheet(*sweep, 60).equals(label_sheet(*sweep, 60))
    assert set(label_sheet(*sweep, 60)["id"]) != set(label_sheet(*sweep, 90)["id"])
