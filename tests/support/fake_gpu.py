"""A GPU that is not there: tensors on "cuda" have shapes, no memory and no numbers.

Tensors on the CPU are real. What mixes both devices raises, as it would on a GPU, and each wait of
the host for the device is counted. Whole numbers and truth values on the GPU are computed beside
it, so that shapes which follow from them are right; of other numbers what the host reads is 1.

Torch's own fake tensors want a device that autograd can ask for a stream: `fake_gpu.cpp`.
"""

import ctypes
import subprocess
import tempfile
import weakref
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import cache
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import DynamicOutputShapeException, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_leaves, tree_map_only, tree_unflatten

from raycib.training.strategies import Strategy
from raycib.training.workers import Workers

CUDA = torch.device("cuda", 0)
aten = torch.ops.aten
INDEXING = (aten.index.Tensor, aten.index_put_.default, aten._index_put_impl_.default)
on_cpu = torch.nn.functional.scaled_dot_product_attention


class FakeGPU(TorchDispatchMode):
    """Within it there is a GPU."""

    def __init__(self) -> None:
        super().__init__()
        self.waits: Counter[str] = Counter()
        """For results, by what the host asked for; `copy` is one to the GPU that does not say that
        it need not be waited for."""
        self.held = self.peak = 0
        """Bytes of all tensors there, now and at most."""
        self.attention: Counter[str] = Counter()
        """Calls, by the kernel that a GPU would take."""
        self._fake = FakeTensorMode(allow_non_fake_inputs=True)
        self._storages: set[int] = set()

    def __torch_dispatch__(self, func: Any, _: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        given = tree_leaves((args, kwargs))
        fakes = [one for one in given if _there(one)]
        if not fakes and not any(
            isinstance(one, torch.device) and one.type == "cuda" for one in given
        ):
            return func(*args, **kwargs)
        asked = kwargs.get("device")
        if func is aten._local_scalar_dense.default:
            return self._read(args[0], "item").item()
        if func is aten.equal.default:
            self.waits["equal"] += 1
            return True
        if func is aten._to_copy.default and asked is not None and asked.type == "cpu":
            return self._read(args[0], "cpu").to(kwargs.get("dtype") or args[0].dtype)
        if func is aten.copy_.default and not _there(args[0]):
            return args[0].copy_(self._read(args[1], "cpu"))
        if func is aten._to_copy.default and not fakes:
            self.waits["copy"] += not kwargs.get("non_blocking")
        if func is aten.copy_.default and not _there(args[1]):
            self.waits["copy"] += not (args[2] if len(args) > 2 else kwargs.get("non_blocking"))
        if func in INDEXING:
            args = (args[0], self._places(args[1]), *args[2:])
        known = self._known(func, args, kwargs)
        try:
            with self._fake:
                out = func(*args, **kwargs)
        except DynamicOutputShapeException:
            if known is None:
                raise
            self.waits[func.overloadpacket.__name__] += 1
            out = tree_map_only(Tensor, self._like, known)
        for own, real in zip(tree_leaves(out), tree_leaves(known), strict=False):
            if isinstance(real, Tensor) and not real.is_floating_point():
                own.known = real
        for own in filter(_there, tree_leaves(out)):
            self._hold(own.untyped_storage())
        return out

    def _read(self, tensor: Any, what: str) -> Tensor:
        self.waits[what] += 1
        known = getattr(tensor, "known", None)
        return torch.ones(tensor.shape, dtype=tensor.dtype) if known is None else known.clone()

    def _places(self, indices: Any) -> list[Any]:
        """Truth values that choose become numbers, for which the host waits."""
        found: list[Any] = []
        for one in indices:
            if one is None or one.dtype != torch.bool:
                found.append(one)
                continue
            real = self._read(one, "index by truth values")
            for place in real.nonzero(as_tuple=True):
                found.append(self._like(place))
                found[-1].known = place
        return found

    def _known(self, func: Any, args: Any, kwargs: Any) -> Any:
        """What comes out, where all that comes in is known."""
        given, form = tree_flatten((args, kwargs))
        if not all(hasattr(one, "known") for one in filter(_there, given)):
            return None
        back = [
            one.known
            if _there(one)
            else torch.device("cpu")
            if isinstance(one, torch.device)
            else one
            for one in given
        ]
        args, kwargs = tree_unflatten(back, form)
        return func(*args, **kwargs)

    def _like(self, real: Tensor) -> Any:
        with self._fake:
            return torch.empty_strided(real.shape, real.stride(), dtype=real.dtype, device=CUDA)

    def _hold(self, storage: Any) -> None:
        place, size = storage._cdata, storage.nbytes()
        if size and place not in self._storages:
            self._storages.add(place)
            self.held += size
            self.peak = max(self.peak, self.held)
            weakref.finalize(storage, self._let_go, place, size)

    def _let_go(self, place: int, size: int) -> None:
        self._storages.discard(place)
        self.held -= size

    def attend(
        self, query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None,
        dropout_p: float = 0.0, is_causal: bool = False, scale: float | None = None,
        enable_gqa: bool = False,
    ) -> Tensor:  # fmt: skip
        """Attention as a GPU of today does it: by FlashAttention in 16 bits without a mask, else by
        the memory-efficient kernel."""
        if not _there(query):
            return on_cpu(
                query,
                key,
                value,
                attn_mask,
                dropout_p,
                is_causal,
                scale=scale,
                enable_gqa=enable_gqa,
            )
        if attn_mask is None and query.dtype in (torch.bfloat16, torch.float16):
            self.attention["flash"] += 1
            flash = aten._scaled_dot_product_flash_attention
            return flash(query, key, value, dropout_p, is_causal, scale=scale)[0]
        self.attention["efficient"] += 1
        if enable_gqa:
            more = query.shape[1] // key.shape[1]
            key, value = key.repeat_interleave(more, 1), value.repeat_interleave(more, 1)
        mask = attn_mask
        if mask is not None:
            mask = torch.zeros_like(mask, dtype=query.dtype) if mask.dtype == torch.bool else mask
            mask = mask.expand(*query.shape[:3], key.shape[2])
        efficient = aten._scaled_dot_product_efficient_attention
        return efficient(
            query, key, value, mask, torch.is_grad_enabled(), dropout_p, is_causal, scale=scale
        )[0]


def _there(one: Any) -> bool:
    return isinstance(one, Tensor) and one.device.type == "cuda"


def _new_tensor(own: Tensor, data: Any) -> Tensor:
    """Torch's own does not come by a mode."""
    return torch.tensor(data, dtype=own.dtype).to(own.device)


def _tolist(own: Tensor) -> Any:
    """Torch's own reads a value after the other."""
    return own.cpu().tolist()


class OnFakeGPU(Strategy):
    """A base there; moved, its tied weights would be two."""

    def __init__(self) -> None:
        super().__init__(Workers(), CUDA)

    def place(self, model: Any) -> None:
        model.to(CUDA)
        model.tie_weights()


@cache
def plug() -> Any:
    """What puts the device in and takes it out. It has to be known before a first backward pass."""
    torch_root = Path(torch.__file__).parent
    with tempfile.TemporaryDirectory() as folder:
        library = Path(folder) / "fake_gpu.so"
        subprocess.run(
            ["g++", "-std=c++20", "-shared", "-fPIC", f"-I{torch_root / 'include'}",
             Path(__file__).with_suffix(".cpp"), "-o", library, f"-L{torch_root / 'lib'}", "-lc10",
             "-ltorch_cpu"],
            check=True,
        )  # fmt: skip
        return ctypes.CDLL(str(library)).plug


@contextmanager
def fake_gpu() -> Iterator[FakeGPU]:
    """Within it there is a GPU, to torch as well."""
    gpu = FakeGPU()
    changed = {
        "torch.cuda._lazy_init": lambda: None,
        "torch.cuda.is_bf16_supported": lambda: True,
        "torch.cuda.amp.common.amp_definitely_not_available": lambda: False,
        "torch.Tensor.new_tensor": _new_tensor,
        "torch._subclasses.fake_tensor.FakeTensor.tolist": _tolist,
        "torch.nn.functional.scaled_dot_product_attention": gpu.attend,
        # Fake tensors look to transformers as if it was compiled, and had to make every mask.
        "transformers.masking_utils.is_tracing": lambda *_: False,
    }
    plug()(True)
    try:
        with ExitStack() as stack:
            for name, other in changed.items():
                stack.enter_context(mock.patch(name, other))
            yield stack.enter_context(gpu)
    finally:
        plug()(False)
