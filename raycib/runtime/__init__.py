"""The only room that knows Ray: Tune schedules groups, Train trains them, Serve hosts the judge."""

import os
from pathlib import Path


def joins_a_cluster() -> bool:
    """Whether there is one, at `RAY_ADDRESS`; "local" asks Ray for a new one."""
    return os.environ.get("RAY_ADDRESS", "") not in ("", "local")


def token_file() -> Path:
    """Ray's token: the file of `RAY_AUTH_TOKEN_PATH`, or the user's, whose "~" stays where there is
    no home."""
    named = os.environ.get("RAY_AUTH_TOKEN_PATH")
    return Path(named or os.path.expanduser("~/.ray/auth_token"))


# Ray reads both when it is imported. A cluster of one's own is never open: it asks for a token, and
# with the second setting, meant for other systems, every process listens on the loopback address
# instead of on all. An existing cluster decides for itself.
if not joins_a_cluster():
    os.environ.setdefault("RAY_AUTH_MODE", "token")
    os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
