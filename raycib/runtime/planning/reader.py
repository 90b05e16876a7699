"""What a sweep's setup reads of models and rows; and what stands in for files that are not here, so
that there is a plan without them."""

import math
from collections.abc import Sequence
from typing import Any

from raycib.config import EngineName, JudgeSpec, ModelSpec, RunSpec, Template
from raycib.costs.known import known_sizes, published
from raycib.costs.sizes import Sizes, sizes_of
from raycib.data.origins import ASSUMED, origin, parts_of
from raycib.data.rows import Loaded, Row, read_rows
from raycib.data.stand_ins import CHARACTERS, known
from raycib.errors import NotHere, UserError
from raycib.evals.judge_profiles import endpoint_profile
from raycib.model_files import context_length, describe
from raycib.model_files.adapter_targets import check_places
from raycib.runtime.judge import describe_judge
from raycib.runtime.token_counts import TokenCounts

AROUND = 20
"""Tokens of a template around a prompt, where there is no tokenizer."""


class Reader:
    """Reads the files. What is not within reach raises `NotHere`."""

    assumed: tuple[str, ...] = ()
    """What stands in for files, in words."""

    def source(self, source: str) -> str:
        """Where the rows of a source are read."""
        return source

    def model(self, source: str, dtype: str | None = None, template: Template = "own") -> ModelSpec:
        """The spec of a model."""
        return describe(source, dtype, template)

    def judge(self, *how: Any) -> JudgeSpec:
        """The spec of a judge; see `describe_judge`."""
        return describe_judge(*how)

    def counts(self, model: ModelSpec, root: str, read: dict[str, Loaded]) -> TokenCounts:
        """What counts a model's tokens."""
        return TokenCounts(model, root, read)

    def sizes(self, source: str) -> Sizes:
        """The sizes of a model."""
        return sizes_of(source)

    def check_places(self, runs: Sequence[RunSpec], engine: EngineName) -> None:
        """Raise `UserError` where an adapter finds no place in its model, or in what answers."""
        check_places(runs, engine)


class Assumed(Reader):
    """Reads what is here, and has stand-ins for the rest: sizes of published models, rows in the
    number of published sets, with lengths of rows that were measured. For a plan alone."""

    def __init__(self) -> None:
        self._told: dict[str, None] = {}

    @property
    def assumed(self) -> tuple[str, ...]:  # type: ignore[override]
        return tuple(self._told)

    def source(self, source: str) -> str:
        try:
            read_rows(source)
        except NotHere:
            for part in parts_of(source):
                name = origin(part).source.name.removeprefix("hub:")
                self._told[f"{known(name)}, with lengths that were measured on some"] = None
            return source.replace("hub:", ASSUMED)
        return source

    def model(self, source: str, dtype: str | None = None, template: Template = "own") -> ModelSpec:
        try:
            return describe(source, dtype, template)
        except NotHere:
            if published(source) is None:
                raise
            self._told[f"{source} has its published sizes"] = None
            return ModelSpec(
                source=source,
                weights=f"not here    {source}",
                tokenizer="assumed",
                dtype=dtype or "bfloat16",  # type: ignore[arg-type]
                template=template,
            )

    def judge(self, *how: Any) -> JudgeSpec:
        try:
            return describe_judge(*how)
        except NotHere:
            source, _, named, _ = how
            if published(source) is None:
                raise
            self._told[f"{source} has its published sizes"] = None
            profile = endpoint_profile(source, named)
            return JudgeSpec(
                kind="guard", source=source, weights=f"not here    {source}", profile=profile.name,
                categories=profile.categories,
            )  # fmt: skip

    def counts(self, model: ModelSpec, root: str, read: dict[str, Loaded]) -> TokenCounts:
        return _FourCharacters(model, read, self)

    def sizes(self, source: str) -> Sizes:
        try:
            return sizes_of(source)
        except NotHere:
            if (known := known_sizes(source)) is None:
                raise
            return known

    def check_places(self, runs: Sequence[RunSpec], engine: EngineName) -> None:
        for run in runs:
            for stage in run.adapters:
                made = run.stages[0].model.source
                found = self.sizes(made).adapted(stage.lora.targets) if stage.lora else {}
                for target in stage.lora.targets if stage.lora else ():
                    if not any(name.endswith(f".{target}") for name in found):
                        raise UserError(f"model {made!r} has no linear layer named {target!r}")


class _FourCharacters(TokenCounts):
    """Counts characters in place of tokens."""

    def __init__(self, model: ModelSpec, read: dict[str, Loaded], reader: Assumed) -> None:
        super().__init__(model, "", read)
        reader._told[
            f"{CHARACTERS} characters a token, {AROUND} tokens of the template in a row"
        ] = None

    def context(self, most: int) -> int:
        known = published(self.model.source)
        return min(most, known.positions) if known else context_length(self.model.source, most)

    def _count(self, sets: list[list[Row]]) -> list[Any]:
        return [(1, [_length(row) for row in rows]) for rows in sets]


def _length(row: Row) -> tuple[int, int]:
    prompt = AROUND + math.ceil(len(row.system + row.prompt) / CHARACTERS)
    said = math.ceil(len(row.response) / CHARACTERS)
    return prompt, prompt + said + bool(said)
