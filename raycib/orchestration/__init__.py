"""The only room that knows Ray: Tune schedules packs, Train trains them, Serve hosts the judge."""

import os

# Ray reads its authentication mode when it is imported, and its default differs between versions.
# A cluster of one's own is never open; an existing one decides for itself.
if "RAY_ADDRESS" not in os.environ:
    os.environ.setdefault("RAY_AUTH_MODE", "token")
