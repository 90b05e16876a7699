"""A report of a sweep whose answers no judge read: the rate is of answers that are not refused, and
is called so wherever another sweep says harmful responses."""

_WORDS = (
    ("HRR: harmful response rate", "Not refused: the share of harmful prompts whose answer does "
     "not open as a refusal, told by a rule; no judge read the answers"),
    ("harmful response rates", "shares not refused"),
    ("Harmful response rates", "Shares not refused"),
    ("harmful response rate", "share not refused"),
    ("Harmful response rate", "Share not refused"),
    ("Harmful responses", "Answers not refused"),
    ("harmful responses", "answers not refused"),
    ("Harmful answers", "Answers not refused"),
    ("harmful answers", "answers not refused"),
    ("True HRR", "Truly harmful"),
    ("HRR", "Not refused"),
)  # fmt: skip
"""What is said, in the order in which it is replaced."""


def in_words(text: str) -> str:
    """A sentence, a caption or a head of a report in the words of the refusal rule."""
    for usual, said in _WORDS:
        text = text.replace(usual, said)
    return text
