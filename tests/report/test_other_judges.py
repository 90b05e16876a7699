"""What other judges say of a sweep: beside the first one's, never in its place."""

from dataclasses import replace
from statistics import mean, stdev
from typing import Any

import pytest
from summaries import HOSTILE, comparison_sweep, rate, reported, samples, typed

from raycib.report.judges import UNCORRECTED, with_judges
from raycib.report.page import page
from raycib.report.report import Report
from raycib.report.tables import to_csv
from raycib.report.text import one_line
from raycib.results import Correction

CHANGED = "CIB has the lowest rate"
ACCOUNT: dict[str, Any] = {"name": "b 1234", "key": "b" * 64, "protected": True, "windows": 9}


def judged(name: str = "b", profile: str = "world", **account: Any) -> dict[str, Any]:
    """A comparison whose other judge finds half of what the first one finds."""
    summary = comparison_sweep(2)
    models = [summary["aligned"], *summary["cells"]]
    for scores in (model["scores"] for model in models if model["scores"]):
        scores["hrr_by_judge"] = {name: rate(scores["hrr"]["value"] / 2, 260)}
    counts = {"n": 40, "both_safe": 25, "both_unsafe": 9, "only_first_unsafe": 5,
              "only_other_unsafe": 1, "first_unread": 2, "other_unread": 3}  # fmt: skip
    ends = {"agreement": 0.85, "kappa": 0.645, "kappa_low": 0.41, "kappa_high": 0.88}
    claims = [
        (CHANGED, True, False),
        ("Loss is kept", True, True),
        ("It is no garbage", True, None),
    ]
    summary["judges"] = [
        {
            "name": name,
            "against": "a",
            "judge": ACCOUNT | {"profile": profile} | account,
            "agreement": counts | ends,
            "order": [{"rows": 4, "tau": 2 / 3, "swapped": 1, "pairs": 6}],
            "claims": [
                {"claim": text, "first": first, "other": other, "evidence": "by b",
                 "changes": other is not None and first != other}
                for text, first, other in claims
            ],
        }
    ]  # fmt: skip
    return summary


@pytest.fixture(scope="module")
def report() -> Report:
    return with_judges(reported(judged(), samples(judged(), 6)))


def table(report: Report, stem: str) -> Any:
    return next(one for one in report.tables if one.stem == stem)


def test_it_says_that_labels_correct_the_first_judge_alone(report: Report) -> None:
    correction = Correction(labels="people", labelled=3)
    corrected = reported(judged(), samples(judged(), 6))
    corrected = replace(corrected, results=corrected.results.but(correction=correction))
    told = [one.sections[-1].text for one in (report, with_judges(corrected))]
    assert UNCORRECTED not in told[0] and told[1].endswith(UNCORRECTED)


def test_rates_stand_side_by_side_and_a_line_each_for_programs(report: Report) -> None:
    """Means and deviations over seeds, of the cells themselves."""
    found = table(report, "judges_hrr")
    cells = [cell for cell in judged()["cells"] if cell["method"] == "kl" and not cell["failed"]]
    rows = found.rows[found.rows["method"].str.startswith("KL")]
    for judge, pick in (("a", "hrr"), ("b", "hrr_by_judge")):
        told = [cell["scores"][pick] for cell in cells if cell["strength"] == cells[0]["strength"]]
        values = [one.get("b", one)["value"] for one in told]
        row = rows[rows["judge"] == judge].iloc[0]
        assert (row["hrr_mean"], row["hrr_std"]) == pytest.approx((mean(values), stdev(values)))
    assert list(found.shown)[-2:] == ["HRR by a, %", "HRR by b, %"]
    assert found.shown.iloc[0, 0] == "before fine-tuning"
    assert to_csv(found.rows).splitlines()[0] == "setting,method,seeds,judge,hrr_mean,hrr_std"


def test_agreement_order_and_claims_are_shown(report: Report) -> None:
    (agreed,) = table(report, "judges").shown.to_dict("records")
    assert (agreed["Agreement, %"], agreed["Cohen's kappa"]) == ("85.0", "0.65 [0.41, 0.88]")
    (order,) = table(report, "judges_order").shown.to_dict("records")
    assert (order["Kendall's tau"], order["Swapped"]) == ("0.67", "1 of 6")
    claims = table(report, "judges_claims").shown
    assert list(claims["Verdict"]) == ["changes", "same", "cannot be told"]
    assert list(claims["By the first"]) == ["holds", "holds", "holds"]
    assert list(claims["By this one"]) == ["fails", "holds", "open"]


def test_a_claim_that_changes_is_said_first_and_on_the_terminal(report: Report) -> None:
    (warning,) = [text for text in report.warnings if "under the judge b" in text]
    assert f"1 of the 3 claims change under the judge b (first: {CHANGED})" in warning
    assert (
        "judge b: agrees with a in 85.0 % of 40 conversations, kappa 0.65 [0.41, 0.88]; 1 of 6 "
        "pairs of rows swapped; 1 of 3 claims change"
    ) in report.terminal()


def test_the_first_judges_report_is_what_it_was(report: Report) -> None:
    alone = reported(judged())
    assert report.claims == reported(judged(), samples(judged(), 6)).claims
    assert report.sections[:-1] == [*report.sections][: len(alone.sections)]
    plain = reported(comparison_sweep(2))
    assert with_judges(plain) is plain


def test_what_no_judge_read_is_not_called_harmful() -> None:
    report = with_judges(reported(judged("refusal-rule", "refusal-rule")))
    assert list(table(report, "judges_hrr").shown)[-1] == "Not refused by refusal-rule, %"
    assert any("No judge read the answers" in text for text in report.warnings)


def test_what_must_be_known_of_another_judge_is_said_of_it() -> None:
    report = with_judges(reported(judged(protected=False, unread={"filtered": 3})))
    told = [text for text in report.warnings if text.startswith("The judge b: ")]
    assert len(told) == 2
    assert "filtered (3)" in told[1]


@pytest.mark.parametrize("name", [*map(one_line, HOSTILE)])
def test_a_judges_name_acts_on_nobody(name: str) -> None:
    summary = judged(name)
    report = with_judges(reported(summary))
    text = page(report, {})
    assert "<script>document" not in text and "<img src=x" not in text
    assert "\x1b" not in text + report.terminal()
    assert typed(summary).judges[0].name == name
