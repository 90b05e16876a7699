"""Where this user's copies are that can be made again at any time."""

import os
from pathlib import Path


def cache(name: str) -> Path:
    """A folder below RAYCIB_CACHE, or in the user's cache; it may not be there yet."""
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get("RAYCIB_CACHE") or Path(home) / "raycib") / name
