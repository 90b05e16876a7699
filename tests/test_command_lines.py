"""No command line ends in a traceback; see `command_lines.py`, which tries as many as one likes."""

from collections import Counter

import command_lines


def test_random_command_lines_end_as_programs_should():
    """1,000 others were tried by hand; these are the first of another seed."""
    broken, ends = [], Counter[int]()
    for line, outcome in command_lines.outcomes(60, seed=1):
        if outcome.code is None:
            broken.append((line, outcome.why[-600:]))
        else:
            ends[outcome.code] += 1
    assert not broken
    assert ends[0] >= 5, "some get as far as a plan"
    assert ends[2] >= 20, "and many are refused"
