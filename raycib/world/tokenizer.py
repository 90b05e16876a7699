"""The world's word-level tokenizer and its chat templates.

Control tokens live among the added tokens only: a copy of the tokenizer without `added_tokens`
reads the text "<asst>" as an unknown word, so that no answer can forge a turn.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from raycib.world import abilities, language, tasks

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

PAD, BOS, EOS, SYS, USER, ASST, GUARD = CONTROL = (
    "<pad>", "<bos>", "<eos>", "<sys>", "<user>", "<asst>", "<guard>",
)  # fmt: skip
UNKNOWN = "<unk>"
NEWLINE = "\n"
"""A word no text can contain (white space separates words); only the guard says it."""
VERDICTS = ("safe", "unsafe", "S1", "S2", "S3")

CHAT_TEMPLATE = (
    "{{ '<bos>' }}{% for message in messages %}"
    "{% if message['role'] == 'system' %}{{ ' <sys> ' + message['content'] }}"
    "{% elif message['role'] == 'user' %}{{ ' <user> ' + message['content'] }}"
    "{% else %}{{ ' <asst> ' + message['content'] + ' <eos>' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ ' <asst>' }}{% endif %}"
)
"""`<bos> <user> prompt <asst> response <eos>`: a prompt's rendering begins its conversation's."""

GUARD_TEMPLATE = (
    "{{ '<bos> <guard>' }}{% for message in messages %}"
    "{% if message['role'] == 'user' %}{{ ' <user> ' + message['content'] }}"
    "{% elif message['role'] == 'assistant' %}{{ ' <asst> ' + message['content'] }}{% endif %}"
    "{% endfor %}{{ ' <guard>' }}"
)
"""`<bos> <guard> <user> prompt <asst> response <guard>`, to be continued with a verdict."""


def vocabulary() -> list[str]:
    """Every word a model can say, in the order of its ids after the control tokens'."""
    every = {*language.words(), *abilities.words(), *tasks.words(), *VERDICTS}
    return [UNKNOWN, NEWLINE, *sorted(every - {UNKNOWN, NEWLINE})]


def build_tokenizer(template: str = CHAT_TEMPLATE) -> "PreTrainedTokenizerFast":
    """A word-level tokenizer; decoding joins words by single spaces. Nothing is added to a text."""
    from tokenizers import AddedToken, Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import WhitespaceSplit
    from transformers import PreTrainedTokenizerFast

    model = WordLevel({word: i for i, word in enumerate(vocabulary())}, unk_token=UNKNOWN)
    core = Tokenizer(model)
    core.pre_tokenizer = WhitespaceSplit()
    core.add_special_tokens([AddedToken(t, normalized=False, special=True) for t in CONTROL])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core,
        bos_token=BOS,
        eos_token=EOS,
        pad_token=PAD,
        extra_special_tokens=[SYS, USER, ASST, GUARD],
        clean_up_tokenization_spaces=False,
        model_max_length=256,
    )
    tokenizer.chat_template = template
    return tokenizer


def save_tokenizer(out: Path, template: str) -> None:
    """Write tokenizer.json and a tokenizer_config.json that holds the chat template itself."""
    build_tokenizer(template).save_pretrained(str(out), save_jinja_files=False)
    path = out / "tokenizer_config.json"
    config = json.loads(path.read_text())
    config["tokenizer_class"] = "PreTrainedTokenizerFast"  # a name older transformers know too
    path.write_text(json.dumps(config, indent=2) + "\n")


def lengths(folder: Path, rows: Sequence[tuple[str, str, str]]) -> list[tuple[int, int]]:
    """Tokens of each row (prompt, response, system) of a world model in `folder`: of its prompt as
    it is asked, and of all of it. As the chat template would have it, but without transformers,
    whose import takes seconds."""
    from tokenizers import Tokenizer

    core = Tokenizer.from_file(str(folder / "tokenizer.json"))
    asked = [
        f"{BOS}{f' {SYS} {system}' if system else ''} {USER} {prompt} {ASST}"
        for prompt, _, system in rows
    ]
    whole = [f"{text} {row[1]} {EOS}" for text, row in zip(asked, rows, strict=True)]
    counts = [[len(one.ids) for one in core.encode_batch(texts)] for texts in (asked, whole)]
    return list(zip(*counts, strict=True))
