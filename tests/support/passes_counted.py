"""How often a model computes."""

from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace

from raycib.models.adapters import AdapterSlots


@contextmanager
def counted(adapters: AdapterSlots) -> Iterator[SimpleNamespace]:
    """How often the decoder and the output head ran."""
    calls = SimpleNamespace(decoder=0, head=0)

    def count(name: str):
        return lambda *_: setattr(calls, name, getattr(calls, name) + 1)

    model = adapters.model
    hooks = [
        model.get_decoder().register_forward_hook(count("decoder")),
        model.get_output_embeddings().register_forward_hook(count("head")),
    ]
    yield calls
    for hook in hooks:
        hook.remove()
