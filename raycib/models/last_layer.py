"""The last decoder layer, computed where its states are read.

Its attention needs every token, for keys and values. What follows works token by token, and no
later layer reads it: without the tokens that nobody asks about, the others have the same numbers.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

from jaxtyping import Int
from torch import Tensor, nn

from raycib.models.decoder import attentions, decoder_layers, with_forwards


@contextmanager
def last_layer_at(
    model: Any,
    places: Int[Tensor, " places"],
    beyond: Callable[[], AbstractContextManager[None]],
) -> Iterator[None]:
    """Within it, the decoder gives the states of these `places` alone, (1 places dim): ascending
    places in all tokens that go through it, padding included. What follows the last layer's
    attention runs in a context that `beyond` makes."""
    layer = decoder_layers(model)[-1]
    place, attention = next(attentions(layer))

    def chosen(states: Tensor) -> Tensor:
        return states.flatten(0, 1).index_select(0, places)[None]

    def narrow(own: Callable[..., Any]) -> Callable[..., Any]:
        def forward(states: Tensor, *args: Any, **options: Any) -> Any:
            try:
                setattr(layer, place, _Stop())
                own(states, *args, **options)
                raise RuntimeError("the last layer has no attention")
            except _Reached as reached:  # not kept: it holds on to what was computed
                given, with_options = reached.given
            finally:
                setattr(layer, place, attention)
            found = attention(*given, **with_options)
            attended, *others = found if isinstance(found, tuple) else (found,)
            try:
                known = (chosen(attended), *others) if others else chosen(attended)
                setattr(layer, place, _Known(known))
                with beyond():
                    return own(chosen(states), *args, **options)
            finally:
                setattr(layer, place, attention)

        return forward

    with with_forwards([layer], narrow):
        yield


class _Reached(Exception):
    """What attention is given."""

    def __init__(self, given: tuple[Any, Any]) -> None:
        super().__init__()
        self.given = given


class _Stop(nn.Module):
    """Stands in attention's place and goes no further."""

    def forward(self, *args: Any, **options: Any) -> None:
        raise _Reached((args, options))


class _Known(nn.Module):
    """Stands in attention's place and gives what it gave."""

    def __init__(self, output: Any) -> None:
        super().__init__()
        self.output = output

    def forward(self, *args: Any, **options: Any) -> Any:
        return self.output
