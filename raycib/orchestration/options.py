"""What a person may ask of any sweep."""

from dataclasses import dataclass, fields

from raycib.data.lengths import TooLong
from raycib.errors import UserError
from raycib.spec import Scorer, Template


@dataclass(frozen=True)
class Options:
    """What a person may ask of any sweep; None keeps the preset's choice."""

    out: str = "runs"
    seeds: int | None = None
    preset: str | None = None
    """None: the world, whose settings are for its own models alone."""
    workers: int | None = None
    pack: int | None = None
    model: str | None = None
    task: str | None = None
    harmful: str | None = None
    benign: str | None = None
    probes: str | None = None
    scorer: Scorer | None = None
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
    too_long: TooLong = "drop"
    dry_run: bool = False
    fail_fast: bool = False

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            for text in value if isinstance(value, tuple) else (value,):
                if isinstance(text, str) and not _is_text(text):
                    option = "set" if field.name == "changes" else field.name.replace("_", "-")
                    raise UserError(
                        f"--{option} {text[:60]!r} holds a byte that is no text; rename the file "
                        "or write it in UTF-8"
                    )


def _is_text(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return "\0" not in value
