"""Text that people will see: what a model wrote must never act on whoever reads it."""

import re

# Only the sequences themselves go: a title or link hidden in one (OSC, DCS) stays to be read.
_ESCAPE_SEQUENCES = re.compile(
    r"(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]"  # CSI: colours, cursor movement
    r"|\x1b[ -/]*[0-~]?"  # any other escape, or the start of a longer one
)
_CONTROLS = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f"  # C0 and C1, except tab and newline
    "\u200e\u200f\u202a-\u202e\u2066-\u2069]"  # marks that reverse the order of what is shown
)
_SURROGATES = re.compile("[\ud800-\udfff]")
_MARKDOWN = re.compile(r"([\\`*_\[\]<>|#~!$])")


def plain(text: object) -> str:
    """``text`` without terminal escapes, control characters or lone surrogates.

    Tabs and newlines stay. Lone surrogates, which no file encoding can hold, become U+FFFD.
    """
    if (text := str(text)).isprintable():  # nothing of all that is
        return text
    line_ends = text.replace("\r\n", "\n").replace("\r", "\n")
    return _SURROGATES.sub("\ufffd", _CONTROLS.sub("", _ESCAPE_SEQUENCES.sub("", line_ends)))


def one_line(text: object, limit: int = 200) -> str:
    """``plain`` text on one line, at most ``limit`` characters long."""
    words = " ".join(plain(text).split())
    return words if len(words) <= limit else words[: limit - 1] + "…"


def spreadsheet_cell(text: object) -> str:
    """``plain`` text that no spreadsheet takes for a formula (OWASP, CSV injection)."""
    safe = plain(text)
    return f"'{safe}" if safe.lstrip().startswith(("=", "+", "-", "@")) else safe


def markdown_cell(text: object) -> str:
    """One line of text for a cell of a Markdown table, without markup or links."""
    return _MARKDOWN.sub(r"\\\1", one_line(text))
