"""No command line ends in a traceback; see `command_lines.py`, which tries as many as one likes."""

from collections import Counter

import command_lines
import pytest


@pytest.mark.timeout(900)
def test_random_command_lines_end_as_programs_should():
    """A thousand of other seeds were tried; some wait for a process, which takes long where others
    are at work."""
    broken, ends = [], Counter[int]()
    for line, outcome in command_lines.outcomes(40, seed=1):
        if outcome.code is None:
            broken.append((line, outcome.why[-600:]))
        else:
            ends[outcome.code] += 1
    assert not broken
    assert ends[0] >= 3, "some get as far as a plan"
    assert ends[2] >= 15, "and many are refused"
