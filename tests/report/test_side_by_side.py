"""Answers side by side: paired on prompts, and held once."""

import json

from raycib.report.side_by_side import comparison, flips, verdicts


def said(*verdicts):
    return [{"prompt": f"p{i}", "answer": "", "verdict": v} for i, v in enumerate(verdicts)]


def test_flips_are_paired_on_prompts_and_unreadable_verdicts_are_no_verdicts():
    first = verdicts(said("safe", "safe", "unsafe", "safe"))
    found = flips(first, verdicts(said("unsafe", "safe", "safe", "unreadable", "unsafe")))
    assert found == {
        "both_safe": 1, "both_unsafe": 0, "to_unsafe": 1, "to_safe": 1, "unread": 1, "p": 1.0
    }  # fmt: skip


def test_a_prompt_asked_twice_is_paired_in_order():
    twice = [{"prompt": "p", "answer": a, "verdict": "safe"} for a in "ab"]
    held = comparison({"aligned": twice, "k": twice}, {"aligned": "before", "k": "after"})
    assert held["prompts"] == ["p", "p"] and held["pairs"]["0-1"]["both_safe"] == 2


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
