"""transformers without what it imports for models that see: a second of every process.

Loss functions of object detection want scipy, one way of assisted generation sklearn, and
accelerate's settings for SageMaker boto3, wherever these are installed. Nothing here uses any of
that. Once transformers has been imported it knows that they are there, and it is too late.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def hidden(*names: str) -> Iterator[None]:
    """Packages that look as if they were not installed, to whoever asks for the first time."""
    there = {name: sys.modules[name] for name in names if name in sys.modules}
    sys.modules |= dict.fromkeys(names)  # type: ignore[arg-type]
    try:
        yield
    finally:
        for name in names:
            del sys.modules[name]
        sys.modules |= there


if "transformers" not in sys.modules:
    with hidden("boto3", "scipy", "sklearn"):
        import transformers.generation.candidate_generator
        import transformers.loss.loss_utils  # noqa: F401
