"""The judge of a sweep: one that we serve, asked with token ids, or somebody's chat endpoint."""

from raycib.errors import UserError
from raycib.evals.judge_address import address
from raycib.evals.judge_profiles import PROFILES, endpoint_profile, folder_profile
from raycib.evals.judge_server import Endpoint, JudgeUnavailable
from raycib.evals.judges import ChatJudge, CompletionJudge, Judge, JudgePrompt
from raycib.model_files import (
    TOKENIZER,
    checked,
    context_length,
    find,
    fingerprint,
    weights_fingerprint,
)
from raycib.spec import JudgeSpec

SHORT_PATIENCE = {"in_flight": 1, "request_timeout_s": 5.0, "tries": 2, "patience_s": 8.0}
"""Before anything has started: a person waits."""


def describe_judge(
    judge: str | None,
    judge_url: str | None,
    profile: str | None = None,
    key_env: str | None = None,
) -> JudgeSpec:
    """The spec of the guard model `judge`, or of the model of that name at `judge_url`.

    `profile` names how it is asked and read where its files or its name do not tell. Without
    `judge` the endpoint is asked which model it serves. Raises `UserError`.
    """
    if judge_url is not None:
        where = address(judge_url, key_env)
        if judge is None:
            try:
                judge = Endpoint(where, **SHORT_PATIENCE).only_model()
            except (JudgeUnavailable, ValueError) as problem:
                raise UserError(str(problem)) from problem
        chosen = endpoint_profile(judge, profile)
        return JudgeSpec(
            kind="endpoint",
            source=where.url,
            weights=judge,
            categories=chosen.categories,
            profile=chosen.name,
            form=chosen.form,
        )
    if key_env is not None:
        raise UserError("--judge-key-env is about the endpoint at --judge-url; give that too")
    if judge is None:
        raise UserError("no judge: give --judge or --judge-url")
    folder = checked(judge, trained=False)
    chosen = folder_profile(folder, judge, profile)
    return JudgeSpec(
        kind="guard",
        source=judge,
        weights=weights_fingerprint(folder),
        tokenizer=fingerprint(folder, TOKENIZER),
        categories=chosen.categories,
        prefix=chosen.prefix,
        profile=chosen.name,
        form=chosen.form,
    )


def make_judge(spec: JudgeSpec, url: str, key_env: str | None = None) -> Judge:
    """The judge of a spec, behind `url`."""
    profile = PROFILES[spec.profile]
    if spec.kind == "endpoint":
        return ChatJudge(url, spec.weights)
    prompt = JudgePrompt(
        find(spec.source),
        max_length=context_length(spec.source) - profile.tokens,
        assistant_prefix=spec.prefix,
    )
    return CompletionJudge(
        url,
        "judge",
        prompt,
        categories=profile.hazards,
        max_tokens=profile.tokens,
    )
