"""What the whole session of tests is told, and what its tests may ask of it."""

import os
from collections.abc import Callable
from typing import Any

NIGHTLY = int(os.environ.get("RAYCIB_NIGHTLY", "1"))
"""How many times as much is drawn at random as in a usual run, which draws the same every time."""
Ask = Callable[..., dict[str, Any]]
"""`ask_trainer`, see `conftest.py`."""
