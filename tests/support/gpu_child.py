"""Steps of every method as one group on a GPU that is not there, in a process of its own: autograd
asks once which devices there are. Prints what it saw of the last steps, as JSON.

    python tests/support/gpu_child.py FOLDER
"""

import json
import sys
from pathlib import Path

import fake_gpu
import tiny
from fake_gpu import CUDA, OnFakeGPU
from menu import METHODS

from raycib.invariances.bench import Bench
from raycib.model_files import describe
from raycib.training.group import load, open_slot
from raycib.training.loop import take_step
from raycib.training.workers import Workers

TOKENS = (4096, 10**6, 512)
"""Of a micro-batch, of each step. From the second on CIB has a queue to draw from; it is one
micro-batch, and the third is many."""


def main() -> None:
    """Parents and references are made on the CPU, before."""
    fake_gpu.plug()
    root = Path(sys.argv[1])
    task = tiny.make_stage(root).task
    model = describe(str(root / "model"), "bfloat16")
    bench = Bench(model, tiny.make_base(root), task, tiny.make_safety(root), root)
    assert next(iter(METHODS)) == "lora"
    methods = [tiny.grounded(method, root) for method in METHODS.values()]
    stages = [bench.chain(method)[-1] for method in methods]
    bench.open(stages)
    with fake_gpu.fake_gpu() as gpu:
        loaded = load(stages, CUDA, strategy=OnFakeGPU())
        loaded.adapters.checkpointed = True
        slots = [open_slot(n, one, loaded, bench.store) for n, one in enumerate(stages)]
        moving = [slot for slot in slots if not slot.stage.method.derived]
        waits = []
        for tokens in TOKENS:
            gpu.attention.clear()
            gpu.waits.clear()
            take_step(loaded.adapters, moving, Workers(), 16, tokens)
            waits.append(dict(+gpu.waits))
        steps = {name: slot.step for name, slot in zip(METHODS, slots, strict=True)}
        gpu.waits.clear()
        take_step(loaded.adapters, slots[:1], Workers(), 16, 64)
    held = [one for slot in moving for one in slot.parameters.values()]
    held += [one for slot in moving for moments in slot.moments for one in moments]
    found = {
        "steps": steps,
        "failed": [slot.failed for slot in slots if slot.failed],
        "held": sorted({f"{one.dtype} on {one.device}" for one in held}),
        "attention": list(gpu.attention),
        "waits": waits,
        "waits of LoRA": dict(+gpu.waits),
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main()
