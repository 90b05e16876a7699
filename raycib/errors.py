"""Errors that are shown as one line: those that the user can mend, exit code 2, and a cluster that
was lost, exit code 1."""


def line_of(error: Exception, place: int = 0) -> str:
    """The first line of what an error says (-1: the last), or its kind where it says nothing."""
    said = str(error).strip().splitlines()
    return said[place] if said else type(error).__name__


class UserError(ValueError):
    """Bad input. The message says what was found, where, and what to do, in one line."""


class NotHere(UserError):
    """Files of a hub that are neither on this machine nor within reach."""


LOST = "Ray lost a part of this sweep"


class Lost(Exception):
    """What a sweep runs on is gone, or a part of it. All that was done is stored."""
