"""Greedy answers of one base model, under many LoRA adapters, from one warm vLLM engine."""

import json
import os
from collections.abc import Collection, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from raycib.config import EngineName
from raycib.costs.memory import USABLE
from raycib.data.chat import Encoded
from raycib.errors import UserError
from raycib.evals.engine import Answer, GenerationRequest, refuse_unfit
from raycib.importing import no_collections

if TYPE_CHECKING:
    from vllm.lora.request import LoRARequest

LORA_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""The ranks vLLM has kernels for (`MaxLoRARanks` in vllm/config/lora.py)."""

_CPU_ADAPTERS = 64
"""Adapters kept in memory between calls; each is read from disk once while it stays here."""

CPU_CACHE_BYTES = 2**28
"""Of keys and values, where there is no GPU: thousands of tokens of a small model."""

_MAX_SEQS = 256
"""Sequences in one CPU batch. Here 64, 256 and 512 differed by less than the machine's noise."""


def round_rank(rank: int) -> int:
    """The smallest rank vLLM allows that holds `rank`. Raises ValueError above 512 or below 1."""
    fitting = [allowed for allowed in LORA_RANKS if allowed >= rank]
    if rank < 1 or not fitting:
        raise ValueError(f"lora_rank {rank} cannot be served; vLLM takes 1 to {LORA_RANKS[-1]}")
    return fitting[0]


ENGINE_READS: dict[str, Any] = {
    "trust_remote_code": False,
    "load_format": "safetensors",
    "config_format": "hf",
    "tokenizer_mode": "hf",
    "generation_config": "vllm",
}
"""What an engine reads of a model's folder: the files that its key hashes, as transformers reads
them. Left to itself vLLM prefers Mistral's own format where there is one, and takes penalties and
limits from generation_config.json as defaults of every request; its ends of a text still count."""


def set_vllm_environment(batch_invariant: bool = False) -> None:
    """Choose vLLM's environment before it is imported; what is already set stays.

    One process instead of two (an engine process costs some 40 s more to start on two CPU cores),
    no usage statistics, errors only; with `batch_invariant` the kernels of that name.
    """
    if batch_invariant:
        os.environ["VLLM_BATCH_INVARIANT"] = "1"
    chosen = {
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
        "VLLM_LOGGING_LEVEL": "ERROR",
        "VLLM_NO_USAGE_STATS": "1",
        "DO_NOT_TRACK": "1",
    }
    for name, value in chosen.items():
        os.environ.setdefault(name, value)


def share_of(gpus: float) -> dict[str, Any]:
    """What vLLM is told of its GPUs: of a part of one, that part of its memory; above one the model
    is split over so many of this machine."""
    told: dict[str, Any] = {"gpu_memory_utilization": USABLE * min(1.0, gpus or 1.0)}
    if gpus > 1:
        told |= {"tensor_parallel_size": round(gpus), "distributed_executor_backend": "mp"}
    return told


def _can_be_invariant() -> bool:
    """Whether vLLM has batch-invariant kernels for this machine's GPU, by its documentation."""
    import torch

    return torch.cuda.is_available() and torch.cuda.get_device_capability() >= (8, 0)


class Generator:
    """One warm vLLM engine for one base model. Starting it is the cost; `answer` may be repeated.

    Requests are run adapter after adapter, whatever their order: an adapter is loaded once, and few
    share a batch.
    """

    name: EngineName = "vllm"

    def __init__(
        self,
        model: str | Path,
        *,
        max_lora_rank: int,
        max_model_len: int,
        dtype: str = "float32",
        gpus: float = 1.0,
        adapters_at_once: int = 8,
        targets: Collection[str] = (),
        stop: Sequence[int] = (),
        batch_invariant: bool = False,
    ) -> None:
        """Load `model` (a folder or a hub id).

        `max_lora_rank`: the largest rank any adapter will have; 0 where there will be none.
        `max_model_len`: prompt and answer together, in tokens. `gpus`: see `share_of`, where this
        machine has any. `adapters_at_once`: adapters that may share a batch.
        `targets`: names of the modules that adapters have, wanted where there will be any. Left to
        itself vLLM has room for adapters of embeddings and head as well, and multiplies with them.
        `stop`: ids that end an answer beside the model's own end of sequence, such as the end of a
        turn that its files do not name. `batch_invariant`: with kernels whose sums do not depend on
        the batch; `UserError` where this machine's GPU has none.
        """
        if max_lora_rank and not targets:
            raise ValueError(f"max_lora_rank {max_lora_rank} and no targets; name the modules")
        set_vllm_environment(batch_invariant)
        with no_collections():
            import torch

            from raycib.models.lean_imports import hidden

            with hidden("scipy"):  # which it wants for sound
                from vllm import LLM

        if batch_invariant and not _can_be_invariant():
            raise UserError(
                "execution.batch_invariant needs an NVIDIA GPU of compute capability 8.0 or higher "
                "where answers are given and judged; leave it out, or take another machine"
            )
        options: dict[str, Any] = {"dtype": dtype}
        if torch.cuda.is_available():
            options |= share_of(gpus)
        else:
            from vllm.model_executor.models import registry

            # A process of its own would keep a GPU untouched while a model's class is looked at; it
            # imports all of this again, for each new class of a user.
            registry._run_in_subprocess = lambda look: look()
            options["enforce_eager"] = True
            options["max_num_seqs"] = _MAX_SEQS
            # Prefix caching fills whatever it is given; VLLM_CPU_KVCACHE_SPACE (GiB) overrides.
            options["kv_cache_memory_bytes"] = CPU_CACHE_BYTES
        if max_lora_rank:
            options["enable_lora"] = True
            options["max_lora_rank"] = round_rank(max_lora_rank)
            options["max_loras"] = adapters_at_once
            # It knows modules by the last part of their names.
            options["lora_target_modules"] = sorted({t.rpartition(".")[2] for t in targets})
            options["max_cpu_loras"] = max(_CPU_ADAPTERS, adapters_at_once)
            if not torch.cuda.is_available():
                from raycib.evals import lora_on_cpu

                lora_on_cpu.install()
        with no_collections():  # it imports half of what it needs here
            self._llm: Any = LLM(
                str(model),
                max_model_len=max_model_len,
                enable_prefix_caching=True,
                seed=0,
                **ENGINE_READS,
                **options,
            )
        self.max_model_len = max_model_len
        self.stop = list(stop)
        self.takes_adapters = bool(max_lora_rank)
        self._adapter_ids: dict[Path, int] = {}
        self._found_places: set[frozenset[str]] = set()
        """Targets of adapters all of whose layers the engine has."""

    def answer(self, requests: Sequence[GenerationRequest]) -> list[Answer]:
        """Greedy answers in the order asked.

        Raises ValueError where a prompt leaves no room to answer, FileNotFoundError where an
        adapter's folder is none.
        """
        from vllm import SamplingParams

        refuse_unfit(requests, self.max_model_len)
        named = (one.id for one in requests if one.adapter is not None)
        if not self.takes_adapters and (first := next(named, None)):
            raise ValueError(f"request {first} names an adapter, but max_lora_rank is 0")
        order = sorted(range(len(requests)), key=lambda i: str(requests[i].adapter or ""))
        chosen = [requests[i] for i in order]
        asked = {
            # To copy them whole for each request, as it does, costs a sixth of all; they are alike.
            limit: SamplingParams(
                temperature=0.0,
                max_tokens=limit,
                stop_token_ids=self.stop or None,
                skip_clone=True,
            )
            for limit in {request.max_tokens for request in chosen}
        }
        outputs = self._llm.generate(
            [{"prompt_token_ids": list(request.prompt_ids)} for request in chosen],
            [asked[request.max_tokens] for request in chosen],
            lora_request=[self._lora(request.adapter) for request in chosen],
            use_tqdm=False,
        )
        answers: dict[int, Answer] = {}
        for i, request, output in zip(order, chosen, outputs, strict=True):
            said = output.outputs[0]
            reason = said.finish_reason
            if reason not in ("stop", "length"):
                raise RuntimeError(f"request {request.id} ended with {reason!r}, not an answer")
            answers[i] = Answer(request.id, said.text, tuple(said.token_ids), reason)
        return [answers[i] for i in range(len(requests))]

    def alone(self, requests: Sequence[GenerationRequest]) -> list[Answer]:
        """As `Engine` says. Keys and values of a prompt that was answered before are forgotten."""
        answers: list[Answer] = []
        for request in requests:
            self._llm.reset_prefix_cache()
            answers += self.answer([request])
        return answers

    def losses(self, rows: Sequence[tuple[Encoded, Path | None]]) -> list[float]:
        """As `Engine` says. Nothing is kept of them for prompts that begin alike."""
        import torch
        from vllm import SamplingParams

        texts = [[*row.prompt, *row.response] for row, _ in rows]
        # On a CPU it would start a C++ compiler for the ranks of tokens, which nobody asks for.
        on_cpu = not torch.cuda.is_available()
        with torch.compiler.set_stance("force_eager") if on_cpu else nullcontext():
            outputs = self._llm.generate(
                [{"prompt_token_ids": ids} for ids in texts],
                SamplingParams(temperature=0.0, max_tokens=1, prompt_logprobs=0),
                lora_request=[self._lora(adapter) for _, adapter in rows],
                use_tqdm=False,
            )
        self._llm.reset_prefix_cache()
        found = []
        for (row, _), ids, output in zip(rows, texts, outputs, strict=True):
            told = list(zip(ids, output.prompt_logprobs, strict=True))[len(row.prompt) :]
            found.append(-sum(one[token].logprob for token, one in told) / len(told))
        return found

    def for_lm_eval(self, tokenizer: Any, adapter: Path | None) -> Any:
        """As `Engine` says: lm-eval's vLLM backend on this engine."""
        from raycib.evals.harness.models import engine_lm

        return engine_lm(self._llm, tokenizer, self._lora(adapter), self.max_model_len)

    def _lora(self, adapter: Path | None) -> "LoRARequest | None":
        """vLLM tells adapters apart by the integer alone, so each full path has its own."""
        if adapter is None:
            return None
        from vllm.lora.request import LoRARequest

        path = adapter.absolute()
        number = self._adapter_ids.setdefault(path, len(self._adapter_ids) + 1)
        request = LoRARequest(f"adapter-{number}", number, str(path))
        config = json.loads((path / "adapter_config.json").read_text())
        if (targets := frozenset(config["target_modules"])) not in self._found_places:
            self._refuse_idle(request)
            self._found_places.add(targets)
        return request

    def _refuse_idle(self, request: "LoRARequest") -> None:
        """Raise `UserError` where layers of an adapter would do nothing: vLLM looks at the last
        part of their names alone, and leaves out without a word what it then has no layer for."""
        engine = self._llm.llm_engine
        if getattr(getattr(engine, "model_executor", None), "driver_worker", None) is None:
            return  # the model is in other processes
        engine.add_lora(request)

        def idle(model: Any) -> set[str]:
            manager = model.lora_manager
            return manager.get_adapter(request.lora_int_id).loras.keys() - manager.modules.keys()

        if layers := set().union(*self._llm.apply_model(idle)):
            raise UserError(
                f"vLLM has no layer {min(layers)!r} for the adapter in {request.lora_path}, and "
                f"would leave out {len(layers)} of its layers: give --local, where transformers "
                "answers, or other lora.targets"
            )
