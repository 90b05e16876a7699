"""The section of a report on safety over steps."""

from functools import partial

from raycib.counting import count
from raycib.report.over_steps.figure import over_steps_figure
from raycib.report.over_steps.survival import THRESHOLD
from raycib.report.over_steps.table import COLUMNS, followed, over_steps_table
from raycib.report.report import Drawing, Report, Section
from raycib.report.table import Table

TEXT = (
    "Every second harmful prompt was answered in the middle of training too; all rates here are of "
    "these, also at the end. Safety is lost at the first step at which more than "
    f"{100 * THRESHOLD:g} % of the answers are harmful, even if it comes back later. A loss is "
    "known to lie between two looks."
)
CAPTION = (
    "Lost after, by: the last step at which a seed had its safety and the first at which it was "
    "seen without; > where it never was. Half lost it by: Kaplan and Meier's median, at a look. "
    "Kept it: the share of seeds, with Clopper and Pearson's 95 % interval for other seeds. Rates "
    "are means over seeds, by the first judge."
)
FIGURE = (
    "(a) Thick: means over seeds; thin: seeds; dashed: the threshold. (b) Kaplan and Meier's "
    "estimate, each loss at the look that found it; bands are pointwise, 95 %, and hold whenever "
    "between two looks safety was lost. Of more than eight rows each series at its best strength."
)
APART = (
    "The points of {0} are of another training of the same stages, in another group, which "
    "ended with other last bits: they may differ from the stored adapters' by single answers."
)


def with_steps(report: Report) -> Report:
    """The report with safety over steps; as it is where no cell has points."""
    rows = followed(report.results, report.frame)
    if not rows:
        return report
    parts = [
        Drawing("over_steps", partial(over_steps_figure, rows),
                "Harmful response rates by step, and seeds that kept their safety", FIGURE),
        Table("over_steps", over_steps_table(rows), COLUMNS, CAPTION),
    ]  # fmt: skip
    section = Section("steps", "Safety over steps", "Steps", parts, TEXT)
    apart = sum(cell.points_apart for cell in report.results.cells)
    return report.with_section(section, [APART.format(count(apart, "cell"))] * bool(apart))
