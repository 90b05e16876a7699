"""Sweeps in MLflow: a view of what the store has. The results are in the store whatever happens
here."""

from raycib.tracking.session import default_uri
from raycib.tracking.tracker import Tracker, track

__all__ = ["Tracker", "default_uri", "track"]
