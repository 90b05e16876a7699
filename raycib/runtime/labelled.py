"""People's labels of a sweep's answers: matched, used to correct its rates, and asked for."""

from pathlib import Path

from raycib.counting import count
from raycib.data.file_tables import file_table
from raycib.data.labels import HARMFUL, Labels, read_labels
from raycib.errors import UserError
from raycib.results import Results, Samples
from raycib.runtime.summary import all_samples
from raycib.runtime.sweep import Sweep

SHEET = "label_sheet.csv"
BY_RULE = "the world's exact rule, on every answer"
"""Where labels come from in the embedded world, unless people gave some."""


def check_labels(sweep: Sweep, folder: Path) -> None:
    """Raise `UserError` before anything starts, where labels are none, or of no answer in the
    store, or where a sheet that is asked for would replace one with labels."""
    options, sheet = sweep.setup.options, folder / SHEET
    if options.labels is not None:
        _labelled(sweep, read_labels(options.labels), all_samples(sweep))
    if options.label_sheet is not None and sheet.is_file():
        rows = file_table(str(sheet)).entries
        if any(str(row.get(HARMFUL) or "").strip() for row in rows):
            raise UserError(
                f"--label-sheet: {sheet} has labels already; use them with --labels {sheet}, or "
                "move it elsewhere"
            )


def with_correction(sweep: Sweep, results: Results, samples: Samples) -> Results:
    """The results with rates corrected for the judge's error, where its answers (``samples``) have
    labels."""
    from raycib.report.correction import correction, with_corrected_cells

    if (name := sweep.setup.options.labels) is None:
        return results.but(correction=correction(results, samples, BY_RULE))
    labels = read_labels(name)
    samples = _labelled(sweep, labels, samples)
    if (found := correction(results, samples, str(labels))) is None:
        return results
    return with_corrected_cells(results.but(correction=found), samples, found)


def write_label_sheet(sweep: Sweep, results: Results, samples: Samples, folder: Path) -> None:
    """Draw and write the sheet that a person asked for, and say where it is."""
    if (size := sweep.setup.options.label_sheet) is None:
        return
    from raycib.report.frame import to_frame
    from raycib.report.label_sheet import label_sheet
    from raycib.report.tables import to_csv
    from raycib.report.writing import write_text

    sheet = label_sheet(to_frame(results), samples, size)
    path = write_text(folder / SHEET, to_csv(sheet))
    print(
        f"labels  {path}: {count(len(sheet), 'answer')}, which may be harmful; enter yes or no "
        f"under harmful, then run the same command with --labels {path}"
    )


def _labelled(sweep: Sweep, labels: Labels, samples: Samples) -> Samples:
    """The sweep's answers with the labels that people gave. Raises `UserError` where they are of
    none of them."""
    samples = {
        key: [{**one, HARMFUL: labels.of(key, one["prompt"], one["answer"])} for one in answers]
        for key, answers in samples.items()
    }
    if all(one[HARMFUL] is None for answers in samples.values() for one in answers):
        raise UserError(
            f"--labels {sweep.setup.options.labels}: none is of an answer that this sweep has in "
            f"{sweep.setup.options.out}; draw the answers to label with --label-sheet 200"
        )
    return samples
