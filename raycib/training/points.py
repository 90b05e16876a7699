"""Adapters in the middle of their training, kept to be asked: safety over steps.

What is trained does not change: a point is written out between two steps and draws nothing.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path

from raycib.config.plan import AdapterGroup
from raycib.models.adapters import AdapterSlots
from raycib.store import Record, Store
from raycib.store.kinds import ADAPTER_FILE, POINTS
from raycib.training.slot import Slot
from raycib.training.workers import Workers


class Points:
    """Of the stages of a group, as far as the store lacks them."""

    def __init__(
        self, group: AdapterGroup, adapters: AdapterSlots, store: Store, workers: Workers
    ) -> None:
        self._adapters, self._store, self._workers = adapters, store, workers
        here = set(store.keys(POINTS)) if any(job.points for job in group.jobs) else set[str]()
        here = workers.gather(here)[0]
        self._missing = {
            job.stage.key: {step: key for step, key in job.points.items() if key not in here}
            for job in group.jobs
        }

    def of(self, stage_key: str) -> bool:
        """Whether some of a stage are missing."""
        return bool(self._missing[stage_key])

    def first(self, slots: Iterable[Slot]) -> float:
        """The first step at which one is missing: training cannot go on from behind it."""
        steps = (step for slot in slots for step in self._missing[slot.stage.key])
        return min(steps, default=float("inf"))

    def keep(self, moved: Sequence[Slot]) -> None:
        """Those of the slots that are at one now. Every worker calls this."""
        due = [slot for slot in moved if slot.step in self._missing[slot.stage.key]]
        if due:
            self._adapters.gather()
        for slot in due:
            key = self._missing[slot.stage.key].pop(slot.step)
            if self._workers.rank == 0 and slot.failed is None:
                self._put(slot, key)

    def ended_as(self, slot: Slot, stored: Record) -> None:
        """Keep which adapter a stage ended with that was trained before and was trained again for
        its points: in another group the last bits may differ."""
        with self._store.scratch() as folder:
            self._adapters.export(slot.index, folder, slot.stage.model.source)
            same = (folder / ADAPTER_FILE).read_bytes() == stored.path(ADAPTER_FILE).read_bytes()
        about = {"stage": slot.stage.key, "ends_as_stored": same}
        self._store.put(POINTS, slot.stage.point_key(slot.step), lambda folder: None, about)

    def _put(self, slot: Slot, key: str) -> None:
        def write(folder: Path) -> None:
            with slot.ended():
                self._adapters.export(slot.index, folder, slot.stage.model.source)

        self._store.put(POINTS, key, write, {"stage": slot.stage.key, "step": slot.step})
