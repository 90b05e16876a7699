"""What was not measured is said to be so, in every table, figure, claim and sentence of every
kind of sweep: never as 0, never as nan, None or inf, and never by a traceback."""

import copy
import re
from html.parser import HTMLParser

import pytest
from matplotlib.text import Text
from summaries import (
    ablation_sweep,
    comparison_sweep,
    gaps_sweep,
    orders_sweep,
    reported,
    samples,
    sweep,
    typed,
)

from raycib.report.figures import to_svg
from raycib.report.forms import NOT_MEASURED
from raycib.report.frame import to_frame
from raycib.report.latex import to_latex
from raycib.report.page import page
from raycib.report.scores import aligned_scores
from raycib.report.tables import to_csv, to_markdown
from raycib.studies.comparison.claims import comparison_claims
from raycib.studies.continual.claims import order_claims
from raycib.studies.strength.claims import claims

KINDS = {
    "dose": lambda: sweep(failed=True, seeds=2),
    "comparison": lambda: comparison_sweep(1),
    "ablation": lambda: ablation_sweep(2),
    "gaps": lambda: gaps_sweep(2, tasks=2),
    "orders": lambda: orders_sweep(2, 2, ("lora", "kl", "cib")),
}
UNREAD = {"value": None, "low": None, "high": None, "n": 0, "unread": 260}
TASK = ("accuracy", "accuracies", "utility", "utility_by_probe", "over_refusal", "eval_loss",
        "mutual_information", "mutual_information_last_prompt", "cosine", "distance")  # fmt: skip
BY_NAME = ("accuracies", "utility_by_probe")
NO_NUMBER = re.compile(r"(?<![\w.])(nan|NaN|None|inf|[-−]0(\.0+)?)(?![\w.])")


def scores_of(summary):
    """Every set of scores, each once: the aligned model's, cells' and stages'."""
    found = [summary["aligned"]["scores"]]
    for cell in summary["cells"]:
        found += [stage["scores"] for stage in cell.get("stages", ())] or [cell["scores"]]
    return [scores for scores in found if scores]


def without_task_scores(summary):
    """As of a task whose rule nobody knows: no accuracy, no utility, nothing of held-out rows."""
    for scores in scores_of(summary):
        scores |= {name: {} if name in BY_NAME else None for name in TASK if name in scores}


def unread(summary):
    """As of a judge of whose verdicts none could be read."""
    for scores in scores_of(summary):
        scores |= {name: dict(UNREAD) for name in ("hrr", "incoherent_rate") if name in scores}


def holes(summary):
    """Every third set lacks one thing after the other: as None, without a value, or altogether."""
    for number, scores in enumerate(scores_of(summary)[1::3]):
        for place, name in enumerate(sorted(scores)):
            if name in BY_NAME:
                scores[name] = dict.fromkeys(scores[name])
            elif (number + place) % 3 == 0:
                scores[name] = None
            elif (number + place) % 3 == 1 and isinstance(scores[name], dict):
                scores[name] |= {"value": None, "low": None, "high": None, "n": 0}
            else:
                del scores[name]


def rounded_off(summary):
    """Numbers that round to 0 from below."""
    for scores in scores_of(summary):
        for name, value in scores.items():
            if isinstance(value, float):
                scores[name] = -1e-9
            elif isinstance(value, dict) and "se" in value:
                scores[name] = value | {"value": -1e-9, "low": -2e-9, "high": 1e-9}


class Visible(HTMLParser):
    """The text that a reader sees."""

    def __init__(self):
        super().__init__()
        self.parts, self.hidden = [], 0

    def handle_starttag(self, tag, attrs):
        self.hidden += tag in ("script", "style", "svg")

    def handle_endtag(self, tag):
        self.hidden -= tag in ("script", "style", "svg")

    def handle_data(self, data):
        self.parts += [data] * (not self.hidden)


def everything_said(summary, given, words=lambda report: report):
    """Every text of a sweep by where it stands: page, tables in three forms, terminal, figures;
    `words` changes the report."""
    made = words(reported(summary, given))
    drawn, seen = made.drawn(), Visible()
    seen.feed(page(made, given, {name: to_svg(figure) for name, figure in drawn.items()}))
    found = {"page": "\n".join(seen.parts), "terminal": made.terminal()}
    for table in made.tables:
        name = table.stem
        # In numbers for programs -0.0 is the number that it is.
        found[f"{name}.csv"] = to_csv(table.rows).replace("-0.0", "0.0")
        found |= {f"{name}.md": to_markdown(table.shown)}
        found |= {f"{name}.tex": to_latex(table.brief, made.caption(table))}
    for name, figure in drawn.items():
        texts = [text.get_text() for text in figure.findobj(Text)]
        found[f"figure {name}"] = "\n".join(texts)
    return found


@pytest.mark.parametrize("change", [without_task_scores, unread, holes, rounded_off])
@pytest.mark.parametrize("kind", KINDS)
def test_no_text_shows_what_a_number_is_not(kind, change):
    summary = KINDS[kind]()
    given = samples(summary, 12)
    summary = copy.deepcopy(summary)
    change(summary)
    texts = everything_said(summary, given)
    shown = {
        where: text[max(0, bad.start() - 40) : bad.end() + 20]
        for where, text in texts.items()
        for bad in [NO_NUMBER.search(text)]
        if bad
    }
    assert shown == {}
    if change is without_task_scores:
        frame, aligned = to_frame(typed(summary)), aligned_scores(typed(summary))
        for name in ("accuracy", "over_refusal", "utility"):
            assert frame[name].isna().all() and aligned.get(name) is None
        assert "accuracy" not in texts["terminal"].casefold()
        assert "Not measured in any cell: Over-refusal, Task loss" in texts["page"]
        assert NOT_MEASURED in texts["page"]
        assert "0.0 % of LoRA's" not in texts["page"]
    if change is holes:
        assert "Means are over the cells that have the score" in texts["page"]


@pytest.mark.parametrize("kind", ["dose", "orders"])
def test_tables_say_how_answers_are_scored(kind):
    summary = KINDS[kind]()
    scorer = {"setting": "accuracy of sums", "value": "final number", "from": "its rows"}
    summary["settings"] = [{"setting": "rank", "value": "8", "from": "preset"}, scorer]
    told = "Scored, accuracy of sums: final number."
    report = reported(summary)
    assert report.terminal().endswith(told)
    assert report.caption(report.main).endswith(told)


def test_claims_on_accuracy_utility_and_loss_are_open_where_they_were_not_measured():
    dose, many = sweep(failed=False), comparison_sweep(1)
    for summary in (dose, many):
        without_task_scores(summary)
    told = claims(to_frame(typed(dose)), aligned_scores(typed(dose)))
    open_ = [claim.text for claim in told if NOT_MEASURED in claim.evidence]
    assert [text[:7] for text in open_] == ["Utility", "More th"]
    told = comparison_claims(to_frame(typed(many)), aligned_scores(typed(many)), {})
    about = [c for c in told if "accuracy" in c.text or "equal task loss" in c.text]
    assert len(about) == 5
    assert all(c.holds is None and NOT_MEASURED in c.evidence for c in about)


def test_claims_on_a_sequence_are_open_where_its_accuracies_were_not_measured():
    summary = orders_sweep(3, 1, ("lora", "cib"))
    without_task_scores(summary)
    told = {claim.text: claim for claim in order_claims(typed(summary))}
    [competitive] = [c for text, c in told.items() if "lowest harmful" in text]
    assert competitive.holds is True, "safety was measured"
    assert not [c for text, c in told.items() if "BT," in text or "most stable" in text]


def test_a_method_whose_accuracy_is_unknown_does_not_keep_it():
    """CIB's rate is the lowest, but whether it keeps the task is not known."""
    summary = comparison_sweep(1)
    for cell in summary["cells"]:
        if cell["method"] == "cib":
            cell["scores"]["accuracy"] = None
    told = comparison_claims(to_frame(typed(summary)), aligned_scores(typed(summary)), {})
    lowest = [claim for claim in told if "lowest harmful response rate of" in claim.text]
    assert len(lowest) == 2 and {claim.holds for claim in lowest} == {None}
