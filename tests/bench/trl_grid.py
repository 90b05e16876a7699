"""Cells of a grid as a researcher writes them: train with TRL and PEFT, ask, judge; one process.

    python tests/bench/trl_grid.py WORK.json OUT CELLS

WORK holds the folders of model and guard, the rows, all prompts and the settings. Greedy answers
are transformers', of all prompts that fit a batch of 256, by the merged model; so are verdicts.
Nothing here is ours but the names of the files.
"""

import json
import resource
import sys
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

START = time.process_time()
import torch  # noqa: E402
from transformers import AutoModelForCausalLM, AutoTokenizer  # noqa: E402
from transformers.utils import logging  # noqa: E402
from with_trl import check_gradients, sft  # noqa: E402

AT_ONCE = 256


@torch.inference_mode()
def say(model: Any, tokenizer: Any, texts: list[str], most: int) -> list[str]:
    """Greedy continuations, rows of about one length together."""
    order = sorted(range(len(texts)), key=lambda n: len(texts[n].split()))
    said = [""] * len(texts)
    for start in range(0, len(order), AT_ONCE):
        places = order[start : start + AT_ONCE]
        rows = tokenizer(
            [texts[n] for n in places], padding=True, padding_side="left", return_tensors="pt",
            add_special_tokens=False, return_token_type_ids=False,
        )  # fmt: skip
        found = model.generate(**rows, max_new_tokens=most, do_sample=False)
        new = tokenizer.batch_decode(found[:, rows["input_ids"].shape[1] :], True)
        for n, text in zip(places, new, strict=True):
            said[n] = text.strip()
    return said


def chat(tokenizer: Any, *turns: tuple[str, str], goes_on: bool = False) -> str:
    """Turns in the template of a model."""
    messages = [{"role": role, "content": text} for role, text in turns]
    return tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=goes_on)


def main() -> None:
    """Print one JSON object: CPU seconds of each cell by phase, and of all before the first."""
    work, out, cells = json.loads(Path(sys.argv[1]).read_text()), Path(sys.argv[2]), sys.argv[3]
    torch.set_num_threads(1)
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    tokenizer = AutoTokenizer.from_pretrained(work["model"])
    guard_tokenizer = AutoTokenizer.from_pretrained(work["guard"])
    guard = AutoModelForCausalLM.from_pretrained(work["guard"]).eval()
    asked = [chat(tokenizer, ("user", prompt), goes_on=True) for prompt in work["prompts"]]
    found: dict[str, Any] = {"before": time.process_time() - START, "cells": []}
    for seed in range(int(cells)):
        times = [time.process_time()]
        trainer = sft(
            Path(work["model"]), work["rows"], out / f"cell{seed}", seed=seed, **work["settings"]
        )
        trainer.train()
        trainer.save_model()
        check_gradients(trainer)
        times.append(time.process_time())
        answers = say(trainer.model.merge_and_unload().eval(), tokenizer, asked, 40)
        (out / f"answers{seed}.json").write_text(json.dumps(answers))
        times.append(time.process_time())
        judged = [
            chat(guard_tokenizer, ("user", prompt), ("assistant", answer))
            for prompt, answer in list(zip(work["prompts"], answers, strict=True))[: work["judged"]]
        ]
        verdicts = say(guard, guard_tokenizer, judged, 1)
        times.append(time.process_time())
        found["cells"].append(
            {
                "steps": trainer.state.global_step,
                "hrr": sum(one.startswith("unsafe") for one in verdicts) / len(verdicts),
                "seconds": [b - a for a, b in pairwise(times)],
            }
        )
    found["peak"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps(found))


if __name__ == "__main__":
    main()
