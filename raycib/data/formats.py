"""Known data sets whose answer is not a text in one column, as rows with prompt and response."""

from typing import Any

OPTIONS = ("opa", "opb", "opc", "opd")
UNANSWERABLE = "unanswerable"


def flat(entry: dict[str, Any]) -> dict[str, Any]:
    """An entry of MedMCQA (four options, the right one's number from 0) or SQuAD (answers that a
    text may not hold) with its prompt and response as texts; any other as it is."""
    if {*OPTIONS, "cop"} <= entry.keys() and entry["cop"] in range(len(OPTIONS)):
        options = [f"{letter}. {entry[name]}" for letter, name in zip("ABCD", OPTIONS, strict=True)]
        asked = "\n".join([str(entry.get("question", "")), *options])
        return {"prompt": asked, "response": options[entry["cop"]]}
    answers = entry.get("answers")
    if isinstance(answers, dict) and isinstance(answers.get("text"), list):
        rule = f"If the text does not say, answer: {UNANSWERABLE}."
        asked = f"{entry.get('question', '')} {rule}"
        found = answers["text"][0] if answers["text"] else UNANSWERABLE
        return {"prompt": asked, "context": entry.get("context"), "response": found}
    return entry
