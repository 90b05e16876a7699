"""Groups in the middle of their training, as the store has them: all slots at one step."""

import json
import math
from collections.abc import Sequence
from pathlib import Path

from safetensors.torch import load_file, save_file

from raycib.config.plan import AdapterGroup
from raycib.store import Store
from raycib.store.kinds import CHECKPOINTS
from raycib.training.slot import Slot
from raycib.training.workers import Workers

PLAIN = "lanes.json"
"""All but the tensors, by stage; as stored."""


class Checkpoints:
    """Of one group. Where each worker trains a part of the weights (`in_parts`) it writes that
    part, and a step counts once all parts of it are there."""

    def __init__(self, group: AdapterGroup, store: Store, workers: Workers, in_parts: str) -> None:
        self._group, self._store, self._workers = group, store, workers
        self._in_parts, self._writes = in_parts, in_parts or workers.rank == 0
        self._part = f"-{workers.rank}of{workers.size}-{in_parts}" if in_parts else ""

    def save(self, slots: Sequence[Slot], step: int) -> None:
        """Keep `slots` as they are, in place of what was kept before."""

        def write(folder: Path) -> None:
            plain = {}
            for slot in slots:
                tensors, plain[slot.stage.key] = slot.state()
                save_file(tensors, folder / f"{slot.stage.key}.safetensors")
            (folder / PLAIN).write_text(json.dumps(plain))

        if not self._writes:
            return
        before = self._own().values()
        key = f"{self._group.name}-{step:08d}{self._part}"
        self._store.put(CHECKPOINTS, key, write, {"step": step})
        if self._in_parts:
            self._workers.gather(None)  # the older one goes once all have the newer
        for older in before:
            self._store.discard(CHECKPOINTS, older)

    def resume(self, slots: Sequence[Slot], before: float = math.inf) -> None:
        """Bring all `slots` to the newest whole checkpoint that holds them all, if there is one
        that all workers have, of a step `before` some."""
        own = {step: key for step, key in self._own().items() if step < before}
        for step in sorted(set(own).intersection(*self._workers.gather(list(own))), reverse=True):
            record = self._store.get(CHECKPOINTS, own[step])
            plain = record.value(PLAIN) if record else {}
            if all(self._workers.gather(all(slot.stage.key in plain for slot in slots))):
                assert record is not None
                for slot in slots:
                    tensors = load_file(record.path(f"{slot.stage.key}.safetensors"))
                    slot.restore(tensors, plain[slot.stage.key])
                return

    def discard(self) -> None:
        """They are over."""
        for key in self._keys():
            self._store.discard(CHECKPOINTS, key)

    def _own(self) -> dict[int, str]:
        """Keys of this worker's, by step."""
        found = {}
        for key in self._keys():
            step, dash, part = key.removeprefix(f"{self._group.name}-").partition("-")
            if dash + part == self._part:
                found[int(step)] = key
        return found

    def _keys(self) -> list[str]:
        prefix = f"{self._group.name}-"
        return [key for key in self._store.keys(CHECKPOINTS) if key.startswith(prefix)]
