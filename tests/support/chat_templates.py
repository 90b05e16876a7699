"""Chat templates as models have them, and tokenizers of three kinds to fill them with."""

from typing import Any

from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

LLAMA3 = (
    "{% for m in messages %}<|start|>{{ m.role }}<|sep|>\n\n{{ m.content | trim }}<|eot|>"
    "{% endfor %}{% if add_generation_prompt %}<|start|>assistant<|sep|>\n\n{% endif %}"
)
ALWAYS_OPENS = LLAMA3.partition("{% if add")[0] + "{{ '<|start|>assistant<|sep|>\n\n' }}"
CHATML = (
    "{% for m in messages %}<|start|>{{ m.role }}\n{{ m.content }}<|eot|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|start|>assistant\n{% endif %}"
)
NEVER_OPENS = CHATML.partition("{% if add")[0]
HYBRID = (
    "{% for m in messages %}<|start|>{{ m.role }}\n"
    "{% if m.role == 'assistant' %}<think>\n\n</think>\n\n{% endif %}{{ m.content }}<|eot|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|start|>assistant\n"
    "{% if enable_thinking is defined and not enable_thinking %}<think>\n\n</think>\n\n{% endif %}"
    "{% endif %}"
)
ALWAYS_THINKS = CHATML.replace("assistant\n{% endif %}", "assistant\n<think>\n{% endif %}")
TURN = "{% for m in messages %}{% if m.role == 'user' %}"
LLAMA2 = (
    TURN + "<s>[INST] {{ m.content }} [/INST]{% else %} {{ m.content }} </s>{% endif %}{% endfor %}"
)
MISTRAL = LLAMA2.replace("{% else %} ", "{% else %}")
ZEPHYR = (
    "{% for m in messages %}<|{{ m.role }}|>\n{{ m.content }}</s>\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)
VICUNA = (
    TURN + "USER: {{ m.content }} {% else %}ASSISTANT: {{ m.content }}{{ eos_token }}{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}ASSISTANT: {% endif %}"
)
MARKS = ("<|start|>", "<|sep|>", "<|eot|>", "<s>", "</s>")


def merged(words: str, alphabet: str) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """A vocabulary of characters, and of these words by pairs from the left."""
    vocabulary = {letter: number for number, letter in enumerate(alphabet)}
    merges = []
    for word in words.split():
        for end in range(2, len(word) + 1):
            pair = (word[: end - 1], word[end - 1])
            if pair not in merges:
                merges.append(pair)
                vocabulary.setdefault(word[:end], len(vocabulary))
    return vocabulary, merges


def sentencepiece(template: str) -> Any:
    """As in Llama 2's tokenizer.json: a space before any text, and pieces over the edges of words
    ("](" is one)."""
    words = "\u2581here here \u2581sand \u2581how ]( \u2581</ \u2581I"
    alphabet = "\u2581\n\t\u00f6" + "".join(map(chr, range(33, 127)))
    core = Tokenizer(models.BPE(*merged(words, alphabet)))
    core.normalizer = normalizers.Sequence(
        [normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")]
    )
    core.decoder = decoders.Sequence([decoders.Replace("\u2581", " "), decoders.Fuse()])
    return finished(core, template)


def byte_level(template: str) -> Any:
    """As GPT-2's: bytes, a space joins the word after it, and line breaks join each other."""
    words = "\u0120here here \u0120sand \u010a\u010a \u0120I"
    alphabet = "".join(sorted(pre_tokenizers.ByteLevel.alphabet()))
    core = Tokenizer(models.BPE(*merged(words, alphabet)))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    return finished(core, template)


def finished(core: Tokenizer, template: str, special: bool = True) -> Any:
    core.add_tokens([AddedToken(mark, special=special, normalized=False) for mark in MARKS])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, bos_token="<s>", eos_token="</s>")
    tokenizer.chat_template = template
    return tokenizer
