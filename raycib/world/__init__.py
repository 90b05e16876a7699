"""The embedded world: a small honest language and tiny Llamas that speak it.

The whole product runs on it in minutes on two CPU cores. Importing this module is cheap: neither
torch nor transformers is loaded before a model is built.
"""

from pathlib import Path

from raycib.world.language import harm_category, is_refusal, is_unsafe
from raycib.world.laws import OF_SETS, Law
from raycib.world.tasks import SETS, correct
from raycib.world.tasks import rows as _rows

__all__ = [
    "NAMES", "correct", "folder", "harm_category", "is_refusal", "is_unsafe", "law", "rows",
]  # fmt: skip

NAMES = tuple(SETS)
"""Names of all sets of rows."""

_WEIGHTS = Path(__file__).parent / "weights"


def rows(name: str) -> list[dict[str, str]]:
    """The rows of one named set as `prompt` and `response`, words separated by single spaces.

    Deterministic: the same bytes on every machine. A response is "" where none is known.
    """
    return [{"prompt": prompt, "response": response} for prompt, response in _rows(name)]


def law(name: str) -> Law | None:
    """What a named set of rows is drawn from; None where no law is written down."""
    return OF_SETS.get(name)


def folder(name: str) -> Path:
    """The Hugging Face folder of a shipped model: `base`, `aligned`, `aligned-1`, `aligned-broad`
    or `guard`, all with the same words.

    `aligned-1` is an aligned model from another pretraining seed; `aligned-broad` one that has seen
    the prompts of the tasks before: what a sequence of them starts from.
    """
    path = _WEIGHTS / name
    if not (path / "model.safetensors").is_file():
        known = sorted(p.parent.name for p in _WEIGHTS.glob("*/model.safetensors"))
        raise KeyError(f"the world ships no weights named {name!r}; it ships {', '.join(known)}")
    return path
