"""What a person may ask of any sweep."""

from dataclasses import dataclass

from raycib.spec import Template


@dataclass(frozen=True)
class Options:
    """What a person may ask of any sweep; None keeps the preset's choice."""

    out: str = "runs"
    seeds: int | None = None
    preset: str = "world"
    workers: int | None = None
    pack: int | None = None
    model: str | None = None
    task: str | None = None
    harmful: str | None = None
    safety: str | None = None
    base: str | None = None
    alignment: str | None = None
    orders: str | None = None
    chat: Template = "own"
    methods: str | None = None
    judge: str | None = None
    judge_url: str | None = None
    judge_profile: str | None = None
    judge_key_env: str | None = None
    """The environment variable that holds the key for `judge_url`."""
    strengths: str | None = None
    changes: tuple[str, ...] = ()
    """Settings as `part.name=value`; a part is `trainer`, `lora` or a method's kind."""
    max_length: int | None = None
    max_tokens: int | None = None
    dry_run: bool = False
    fail_fast: bool = False
