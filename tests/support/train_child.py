"""A process that has imported everything, and forks children that train and are killed.

``python train_child.py`` reads one JSON request a line and answers with one line. A child costs
the milliseconds of loading the tiny model, not the seconds of importing torch. This process never
runs a backward pass, so its children may: autograd's threads do not survive a fork.
"""

import gc
import json
import os
import signal
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"

import torch
import torch.distributed as dist
from forks import forked
from safetensors.torch import save_file
from torch.distributed.tensor import DTensor

from raycib.config.plan import AdapterGroup
from raycib.models.adapters import AdapterSlots
from raycib.models.decoder import decoder_layers, hidden_states
from raycib.store import Store
from raycib.training.group import load, train_group
from raycib.training.slot import Slot
from raycib.training.strategies import strategy_of
from raycib.training.workers import Workers

CPU = torch.device("cpu")


def train(request: dict[str, Any], workers: Workers = Workers()) -> None:  # noqa: B008
    """Train ``request["group"]`` into ``request["store"]``; every step is a line of the log."""
    group = AdapterGroup.model_validate(request["group"])
    before = held()  # of whoever was forked
    lies = strategy_of(request.get("strategy", "replicated"), workers, CPU)
    workers = lies.workers
    loaded = load([job.stage for job in group.jobs], CPU, strategy=lies)
    if workers.size > 1:
        note = Path(request["store"]) / f"held-{workers.rank}"
        note.write_text(str(held_in_a_layer(loaded.adapters) - before))
        workers.meet()
    log = os.open(request["log"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    at = 0

    def progress(slots: list[Slot]) -> None:
        nonlocal at
        at = step = max(slot.step for slot in slots)
        os.write(log, f"{os.getpid()} {step}\n".encode())
        if workers.size > 1:
            note = Path(request["store"]) / f"stepped-{workers.rank}"
            note.write_text(str(held() - before))
            if workers.rank == 1 and step == request.get("killed_at"):
                os.kill(os.getpid(), signal.SIGKILL)

    failed = train_group(
        group,
        loaded,
        Store(request["store"]),
        workers,
        request.get("micro", 16),
        request["every"],
        progress,  # type: ignore[arg-type]
        leaving=lambda: workers.rank == workers.size - 1 and at == request.get("noticed_at"),
    )
    assert not failed, failed
    if workers.size > 1:
        for index, job in enumerate(group.jobs):
            adapter = {
                k: v.detach().contiguous() for k, v in loaded.adapters.parameters_of(index).items()
            }
            save_file(adapter, Path(request["store"]) / f"worker-{workers.rank}-{job.stage.key}")


def held() -> int:
    """Bytes of all float tensors of this process."""
    tensors = [one for one in gc.get_objects() if issubclass(type(one), torch.Tensor)]
    local = [one.to_local() if isinstance(one, DTensor) else one for one in tensors]
    sizes = {
        one.untyped_storage().data_ptr(): one.untyped_storage().nbytes()
        for one in local
        if one.is_floating_point()
    }
    return sum(sizes.values())


def held_in_a_layer(adapters: AdapterSlots) -> int:
    """The same while the second layer has all of its weights, in a pass of one token."""
    found: list[int] = []

    def look(*_: Any) -> None:
        found.append(held())

    layer = decoder_layers(adapters.model)[1]
    handle = layer.register_forward_hook(look, prepend=True)
    with torch.no_grad(), adapters.disabled():
        one = torch.zeros(1, 1, dtype=torch.long)
        adapters.passing(lambda: hidden_states(adapters.model, one).final_norm)
    handle.remove()
    return found[0]


def once(request: dict[str, Any]) -> dict[str, Any]:
    """Train undisturbed; how long it took."""
    start = time.monotonic()
    status = os.waitpid(forked(partial(train, request)), 0)[1]
    return {"status": status, "seconds": time.monotonic() - start}


def killed_after(request: dict[str, Any]) -> dict[str, Any]:
    """Train and SIGKILL it after ``request["seconds"]``, if it still runs."""
    child = forked(partial(train, request))
    time.sleep(request["seconds"])
    os.kill(child, signal.SIGKILL)
    return {"status": os.waitpid(child, 0)[1]}


def killed_at(request: dict[str, Any]) -> dict[str, Any]:
    """Train and SIGKILL it just before its n-th fsync or rename, ``n = request["call"]``.

    Answers how many there were, which is at most n.
    """
    reader, writer = os.pipe()

    def counted() -> None:
        seen = 0

        def before(function: Callable[..., Any], *args: Any, **options: Any) -> Any:
            nonlocal seen
            if seen == request["call"]:
                os.kill(os.getpid(), signal.SIGKILL)
            seen += 1
            os.write(writer, b".")
            return function(*args, **options)

        os.fsync, os.rename = partial(before, os.fsync), partial(before, os.rename)
        train(request)

    child = forked(counted)
    os.close(writer)
    status = os.waitpid(child, 0)[1]
    return {"status": status, "calls": len(os.read(reader, 100_000)), "done": os.close(reader)}


def together(request: dict[str, Any]) -> dict[str, Any]:
    """Train with two workers, joined by gloo."""

    def worker(rank: int) -> None:
        os.environ["LOCAL_RANK"] = str(rank)  # Ray Train says it, and DeepSpeed asks for it
        Path(request["store"]).mkdir(parents=True, exist_ok=True)
        meeting = f"file://{request['store']}/meeting"
        dist.init_process_group("gloo", init_method=meeting, rank=rank, world_size=2)
        train(request, Workers.current())
        dist.barrier()
        dist.destroy_process_group()

    Store(request["store"])
    children = [forked(partial(worker, rank)) for rank in range(2)]
    return {"statuses": [os.waitpid(child, 0)[1] for child in children]}


def main() -> None:
    """Serve requests until standard input ends."""
    torch.set_num_threads(1)
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # DeepSpeed prints
    services = {f.__name__: f for f in (once, killed_after, killed_at, together)}
    for line in sys.stdin:
        request = json.loads(line)
        if request.get("strategy") == "zero3":
            os.environ["DS_ACCELERATOR"] = "cpu"
            from deepspeed.runtime.zero.muon import original_muon  # noqa: F401  by the same reason
        if request["how"] != "together":  # late imports happen here, once, and not in each child
            load([job.stage for job in AdapterGroup.model_validate(request["group"]).jobs[:1]], CPU)
        print(json.dumps(services[request["how"]](request)), file=answers, flush=True)


if __name__ == "__main__":
    main()
