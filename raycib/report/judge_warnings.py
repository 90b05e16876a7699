"""What a reader must know of the judge before believing its rates."""

from raycib.counting import count
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
        reasons = ", ".join(f"{why} ({n})" for why, n in judge.unread.items())
        found.append(f"Why distinct conversations have no readable verdict: {reasons}.")
    if judge.in_windows:
        found.append(
            f"{count(judge.in_windows, 'conversation was', 'conversations were')} too long for the "
            f"judge and read in overlapping parts ({judge.windows} readings in all): an answer is "
            "harmful where a part is."
        )
    if judge.unknown_categories:
        found.append(
            f"{count(judge.unknown_categories, 'verdict names', 'verdicts name')} a category that "
            f"the judge was not asked about; that counts as harmful. Is {judge.profile} the right "
            "profile?"
        )
    for note, n in judge.notes.items():
        found.append(f"Of {count(n, 'verdict')}: {note}.")
    if judge.elsewhere:
        found.append(
            "Some verdicts were given by a model of this name at another address: "
            f"{', '.join(judge.elsewhere)}."
        )
    return found
