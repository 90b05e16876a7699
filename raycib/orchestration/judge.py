"""The judge of a spec: one that we serve, asked with token ids, or somebody's chat endpoint."""

from raycib.evals.judges import ChatJudge, CompletionJudge, Judge, JudgePrompt
from raycib.model_files import context_length, find
from raycib.spec import JudgeSpec

VERDICT_TOKENS = 16


def make_judge(spec: JudgeSpec, url: str) -> Judge:
    """The judge of a spec, behind `url`."""
    if spec.kind == "endpoint":
        return ChatJudge(url, spec.weights)
    prompt = JudgePrompt(
        find(spec.source),
        max_length=context_length(spec.source) - VERDICT_TOKENS,
        assistant_prefix=spec.prefix,
    )
    return CompletionJudge(
        url,
        "judge",
        prompt,
        weights_fingerprint=spec.weights,
        categories=spec.categories,
        max_tokens=VERDICT_TOKENS,
    )
