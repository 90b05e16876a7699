"""Two tiny tokenizers with chat templates: words, and byte-level pieces as Llama 3 has them."""

from pathlib import Path
from typing import Any

from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    decoders,
    models,
    pre_tokenizers,
    trainers,
)
from transformers import PreTrainedTokenizerFast

from raycib.evals.judge_prompt import JudgeInput, JudgePrompt

WORDS = [*(f"w{i}" for i in range(40)), "safe", "unsafe", "\n", "S1", "S2", "S3"]
WORD_TEMPLATE = (
    "<bos> <guard>{% for m in messages %} {{ '<user>' if m['role'] == 'user' else '<asst>' }}"
    " {{ m['content'] }}{% endfor %} <guard>"
)
BYTE_TEMPLATE = (
    "<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\nTask: check the Agent's message."
    "\n\n<BEGIN CONVERSATION>\n\n{% for m in messages %}"
    "{{ 'User' if m['role'] == 'user' else 'Agent' }}: {{ m['content'] | trim }}\n\n{% endfor %}"
    "<END CONVERSATION>\n\nSay safe or unsafe.<|eot_id|>"
    "<|start_header_id|>assistant<|end_header_id|>"
)
"""The form of Llama-Guard-3's template."""
_LLAMA_3_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_CORPUS = [
    "Task: check the Agent's message. User: how do I build a shelf? Agent: Take a board.\n\n"
    "<BEGIN CONVERSATION> the safe and the unsafe conversation. <END CONVERSATION>\n\n"
] * 20


def save(core: Tokenizer, folder: Path, template: str, **special: str) -> Path:
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core, clean_up_tokenization_spaces=False, **special
    )
    tokenizer.chat_template = template
    tokenizer.save_pretrained(folder)
    return folder


def word_level(folder: Path, template: str = WORD_TEMPLATE, in_vocabulary: bool = True) -> Path:
    """Words between white space. `in_vocabulary`: control tokens are also plain words of the model,
    as in many word-level tokenizers: removing them from the added tokens alone changes nothing."""
    control = ["<pad>", "<bos>", "<eos>", "<guard>", "<user>", "<asst>"]
    words = ["<unk>", *(control if in_vocabulary else []), *WORDS]
    core = Tokenizer(models.WordLevel({w: i for i, w in enumerate(words)}, unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    core.add_special_tokens([AddedToken(t, normalized=False, special=True) for t in control])
    core.add_tokens([AddedToken("<think>", normalized=False, special=False), AddedToken("<nl>")])
    return save(core, folder, template, eos_token="<eos>", unk_token="<unk>", pad_token="<pad>")


def byte_level(folder: Path, template: str = BYTE_TEMPLATE, **options: Any) -> Path:
    """Byte-level pairs trained on a few sentences, with special and plain added tokens."""
    core = Tokenizer(models.BPE(**options))
    core.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_LLAMA_3_WORDS), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    core.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=600,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=["<|begin_of_text|>", "<|eot_id|>"],  # these two are words of the model too
        show_progress=False,
    )
    core.train_from_iterator(_CORPUS, trainer)
    names = ["<|start_header_id|>", "<|end_header_id|>", "<|eom_id|>"]
    core.add_special_tokens([AddedToken(name, normalized=False) for name in names])
    core.add_tokens(
        [
            AddedToken("<think>", special=False, normalized=False),
            AddedToken("</think>", special=False, normalized=True, lstrip=True, rstrip=True),
            AddedToken("tool_call", special=False, single_word=True),
        ]
    )
    return save(core, folder, template, eos_token="<|eot_id|>", bos_token="<|begin_of_text|>")


def judge_prompt_ids(folder: Path, prompt: str, answer: str) -> list[int]:
    """The ids that a judge reads."""
    return list(JudgePrompt(folder).render(prompt, answer).ids)


def places(prompt: JudgePrompt, shown: JudgeInput) -> tuple[tuple[int, int], tuple[int, int]]:
    """Where prompt and answer are among the ids: between the pieces of the template, which have to
    be there."""
    head, middle, tail = prompt._pieces
    ids, last = list(shown.ids), len(shown.ids) - len(tail)
    assert ids[: len(head)] == head and ids[last:] == tail
    ends = range(len(head), last - len(middle) + 1)
    first = next(end for end in ends if ids[end : end + len(middle)] == middle)
    return (len(head), first), (first + len(middle), last)
