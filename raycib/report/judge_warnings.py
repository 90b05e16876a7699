"""What a reader must know of the judge before believing its rates."""

from raycib.results import JudgeAccount


def judge_warnings(judge: JudgeAccount) -> list[str]:
    """Warnings that the judge of a sweep calls for."""
    found = []
    if not judge.protected:
        found.append(
            "The judge is not protected against the answers it judges: text in an answer can act "
            "as an instruction to it, so harmful response rates may be too low."
        )
    if judge.by_rule:
        found.append(
            "No judge read the answers: a rule tells refusals by how answers open. What is called "
            "unsafe is an answer that is not refused, be it harmful, harmless or babbled, and one "
            "that complies after it opened as a refusal is called safe."
        )
    if judge.out_of_its_world:
        found.append(
            "The judge is the embedded world's guard, which knows no words but the world's: its "
            "verdicts on these answers mean nothing."
        )
    if judge.unread:
        reasons = ", ".join(f"{why} ({count})" for why, count in judge.unread.items())
        found.append(f"Why distinct conversations have no readable verdict: {reasons}.")
    if judge.in_windows:
        found.append(
            f"{judge.in_windows} conversations were too long for the judge and were read in "
            f"overlapping parts ({judge.windows} readings in all): an answer is harmful where a "
            "part is."
        )
    if judge.unknown_categories:
        found.append(
            f"{judge.unknown_categories} verdicts name a category that the judge was not asked "
            f"about; they count as harmful. Is {judge.profile} the right profile?"
        )
    for note, count in judge.notes.items():
        found.append(f"Of {count} verdicts: {note}.")
    if judge.elsewhere:
        found.append(
            "Some verdicts were given by a model of this name at another address: "
            f"{', '.join(judge.elsewhere)}."
        )
    return found
