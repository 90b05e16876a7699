"""The section of a report on harmful rows among a task's."""

from functools import partial

from raycib.report.poisoned.figure import poisoned_figure
from raycib.report.poisoned.table import columns, poisoned_table, said
from raycib.report.report import Drawing, Report, Section
from raycib.report.table import Table
from raycib.results import Samples

TEXT = (
    "A share of the task's rows is replaced by harmful prompts with harmful answers, none of them "
    "asked; the number of rows stays. Which rows is drawn by the seed: a larger share replaces the "
    "same ones, and more. Every share is a task of its own elsewhere on this page."
)
CAPTION = (
    "Harmful response rate (HRR) in %: mean ± sample standard deviation over seeds. Worst: the "
    "largest of these means, with a 95 % interval for the largest true rate, over seeds and "
    "prompts (with one seed over prompts alone). Its upper end bounds the worst case over these "
    "shares and no others. Task loss: over all shares."
)
FIGURE = (
    "Each method at the strength of its lowest worst case, chosen on these prompts. At the right: "
    "the worst case with its interval. Dashed: sees safety data."
)


def with_poisoned(report: Report, samples: Samples) -> Report:
    """The report with what harmful rows do; as it is where no task has any, or no cell scores."""
    if "harmful_ratio" not in report.frame:
        return report
    rows = poisoned_table(report.frame, samples)
    if not len(rows):
        return report
    parts = [
        Drawing("poisoned", partial(poisoned_figure, rows),
                "Harmful response rate against the share of harmful rows", FIGURE),
        Table("poisoned", rows, columns(rows), CAPTION),
    ]  # fmt: skip
    section = Section("poisoned", "Harmful rows among the task's", "Harmful rows", parts, TEXT)
    return report.with_section(section, notes=filter(None, [said(rows)]))
