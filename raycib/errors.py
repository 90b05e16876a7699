"""The one error that is the user's to mend: shown as one line, exit code 2."""


class UserError(ValueError):
    """Bad input. The message says what was found, where, and what to do, in one line."""


class NotHere(UserError):
    """Files of a hub that are neither on this machine nor within reach."""
