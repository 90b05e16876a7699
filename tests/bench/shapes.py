"""Random Llamas of a given shape, with random rows: what a step costs, not what it learns."""

import random
from dataclasses import dataclass
from pathlib import Path

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from raycib.config import LoRASpec, Method, PlainLoRA, StageSpec, TrainerSpec
from raycib.data.rows import describe_task
from raycib.model_files import describe

TEMPLATE = (
    "{% for m in messages %}<{{ m['role'] }}> {{ m['content'] }}"
    "{% if m['role'] == 'assistant' %} <eos>{% endif %} {% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)
CONTROLS = ["<unk>", "<pad>", "<eos>", "<user>", "<assistant>"]
AROUND = 3
"""Tokens of the template in a row."""
RANK = 8


@dataclass(frozen=True)
class Shape:
    """A model and the rows of a step."""

    hidden: int
    layers: int
    batch: int
    shortest: int
    longest: int
    """Tokens of a row."""
    vocabulary: int = 411

    def __str__(self) -> str:
        size = f"{self.vocabulary // 1000}k" if self.vocabulary > 9999 else self.vocabulary
        tokens = f"{self.shortest}-{self.longest}" if self.shortest < self.longest else self.longest
        return f"h{self.hidden} L{self.layers} V{size} b{self.batch} s{tokens}"

    def make(self, folder: Path) -> Path:
        """A Hugging Face folder with the model and a tokenizer of words."""
        size = self.vocabulary - len(CONTROLS)
        words = {word: n for n, word in enumerate([*CONTROLS, *(f"w{n}" for n in range(size))])}
        inner = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
        inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
        tokenizer = PreTrainedTokenizerFast(
            tokenizer_object=inner,
            unk_token="<unk>",
            pad_token="<pad>",
            eos_token="<eos>",
            additional_special_tokens=CONTROLS[3:],
        )
        tokenizer.chat_template = TEMPLATE
        tokenizer.save_pretrained(folder)
        torch.manual_seed(0)
        # It is made in float32, whatever its configuration says.
        config = self.config
        LlamaForCausalLM(config).to(config.dtype or torch.float32).save_pretrained(folder)
        return folder

    @property
    def config(self) -> LlamaConfig:
        """Of the model."""
        return LlamaConfig(
            vocab_size=self.vocabulary,
            hidden_size=self.hidden,
            intermediate_size=256 * self.hidden // 96,
            num_hidden_layers=self.layers,
            num_attention_heads=4,
            num_key_value_heads=4,
            max_position_embeddings=max(256, self.longest),
            tie_word_embeddings=True,
            eos_token_id=CONTROLS.index("<eos>"),
            pad_token_id=CONTROLS.index("<pad>"),
        )

    def rows(self, steps: int) -> list[dict[str, str]]:
        """Prompts and responses, half and half, for this many steps."""
        draw, found = random.Random(0), []
        for _ in range(steps * self.batch):
            words = draw.choices(range(self.vocabulary - len(CONTROLS)), k=self._words(draw))
            text = [f"w{number}" for number in words]
            half = len(text) // 2
            found.append({"prompt": " ".join(text[:half]), "response": " ".join(text[half:])})
        return found

    def _words(self, draw: random.Random) -> int:
        return draw.randint(self.shortest, self.longest) - AROUND

    def stage(
        self,
        model: Path,
        rows: Path,
        seed: int = 0,
        method: Method | None = None,
        rank: int = RANK,
    ) -> StageSpec:
        """One adapter on all linear layers; its rows come again in every epoch."""
        return StageSpec(
            model=describe(str(model)),
            task=describe_task("random", str(rows), max_length=self.longest),
            lora=LoRASpec(rank=rank, alpha=2 * rank),
            trainer=TrainerSpec(
                learning_rate=1e-3, batch_size=self.batch, epochs=1000, warmup_steps=0
            ),
            method=method or PlainLoRA(),
            seed=seed,
        )
