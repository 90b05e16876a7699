"""The judge of a sweep: a guard in an engine of ours, somebody's chat endpoint, or the refusal
rule, which needs neither."""

from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from raycib.child import in_a_process
from raycib.config import JudgeSpec, digest
from raycib.config.evals import REFUSAL_RULE
from raycib.errors import UserError
from raycib.evals.chat_prompt import chat_messages
from raycib.evals.content_judge import CONTENT
from raycib.evals.engine import Engine
from raycib.evals.generate import Generator
from raycib.evals.judge_address import Address, address
from raycib.evals.judge_asking import CONVERSATION
from raycib.evals.judge_profile import Profile
from raycib.evals.judge_profiles import PROFILES, endpoint_profile, folder_profile
from raycib.evals.judge_reply import NotThere, Refused
from raycib.evals.judge_server import JudgeUnavailable
from raycib.evals.judge_tokens import white_space
from raycib.evals.judges import ChatJudge, GuardJudge, Judge, JudgePrompt
from raycib.evals.refusal_judge import RefusalJudge, describe_refusal_judge
from raycib.evals.verdict_forms import ANOTHER_FORM
from raycib.evals.verdicts import Pair, VerdictCache
from raycib.model_files import (
    TOKENIZER,
    check_embedded,
    checked,
    context_length,
    find,
    fingerprint,
    verified,
    weights_fingerprint,
)
from raycib.model_files.config import read_json
from raycib.results import JudgeAccount

if TYPE_CHECKING:
    from raycib.evals.judge_endpoint import Endpoint

SHORT_PATIENCE = {"in_flight": 1, "request_timeout_s": 5.0, "tries": 2, "patience_s": 8.0}
"""Before anything has started: a person waits."""
ROWS_AT_ONCE = 1024
"""Of those that vLLM is given: it makes batches of its own."""


def describe_judge(
    judge: str | None,
    judge_url: str | None,
    profile: str | None = None,
    key_env: str | None = None,
) -> JudgeSpec:
    """The spec of the guard model `judge`, of the model of that name at `judge_url`, or of the
    refusal rule.

    `profile` names how it is asked and read where its files or its name do not tell. Without
    `judge` the endpoint is asked which model it serves. Raises `UserError`.
    """
    if judge_url is not None:
        where = address(judge_url, key_env)
        if judge is None:
            try:
                judge = _endpoint(where).only_model()
            except (JudgeUnavailable, ValueError) as problem:
                raise UserError(str(problem)) from problem
        chosen = endpoint_profile(judge, profile)
        return JudgeSpec(
            kind="endpoint",
            source=where.url,
            weights=judge,
            categories=chosen.categories,
            profile=chosen.name,
            form=chosen.form(as_text=True),
        )
    if key_env is not None:
        raise UserError("--judge-key-env is about the endpoint at --judge-url; give that too")
    if judge is None:
        raise UserError("no judge: give --judge or --judge-url")
    if judge == REFUSAL_RULE:
        if profile is not None:
            raise UserError(f"--judge {REFUSAL_RULE} is asked nothing; leave --judge-profile out")
        return describe_refusal_judge()
    try:
        folder = checked(judge, trained=False)
    except UserError as error:  # also where the hub is out of reach, which a plan bears
        raise type(error)(f"--judge: {error} (of an API give --judge-url too)") from error
    chosen = folder_profile(folder, judge, profile)
    return JudgeSpec(
        kind="guard",
        source=judge,
        weights=weights_fingerprint(folder),
        tokenizer=fingerprint(folder, TOKENIZER),
        categories=chosen.categories,
        prefix=chosen.prefix,
        profile=chosen.name,
        form=_form(chosen, folder),
    )


def _form(profile: Profile, folder: Path) -> str:
    """The profile's form; another where the tokenizer has white space among its added tokens, whose
    texts were once given to judges in bytes."""
    file = folder / "tokenizer.json"
    white = white_space(read_json(file)) if file.exists() else []
    return digest({"form": profile.form(), "white space": 1}) if white else profile.form()


def unserved_judge(spec: JudgeSpec, url: str | None, key_env: str | None = None) -> Judge:
    """The judge of a spec for which raycib serves nothing: the refusal rule, or an endpoint behind
    `url`, which may have secrets that no spec holds."""
    if spec.kind == "rule":
        return RefusalJudge()
    profile = PROFILES[spec.profile]
    return ChatJudge(address(url or spec.source, key_env), spec.weights, profile=profile)


def on_disk(spec: JudgeSpec) -> JudgeSpec:
    """A guard's spec with its folder, whatever a process takes for its own. Raises `UserError`."""
    return spec.model_copy(update={"source": str(verified(spec).absolute())})


def guard_with_vllm(spec: JudgeSpec, **engine: Any) -> GuardJudge:
    """A guard in an engine of this process; `engine` are `Generator`'s options."""
    length = context_length(spec.source)
    loaded = Generator(spec.source, max_lora_rank=0, max_model_len=length, **engine)
    return guard_judge(spec, loaded, rows_at_once=ROWS_AT_ONCE)


def guard_judge(spec: JudgeSpec, engine: Engine, **asking: int) -> GuardJudge:
    """The judge of a guard's spec, which `engine` runs; `asking` is `GuardJudge`'s."""
    return GuardJudge(engine, guard_prompt(spec), PROFILES[spec.profile], **asking)


def guard_prompt(spec: JudgeSpec) -> JudgePrompt:
    """What a guard reads. Raises `UserError` for a tokenizer or a template that will not do."""
    profile, folder = PROFILES[spec.profile], find(spec.source)
    prompt = JudgePrompt(
        folder,
        max_length=context_length(spec.source) - profile.tokens,
        assistant_prefix=spec.prefix,
        asking=profile.asking,
    )
    check_embedded(folder, prompt.render("a", "a").ids)
    return prompt


def try_guard(asked: dict[str, Any]) -> None:
    """`guard_prompt` of a spec as plain JSON, for a process that may import torch."""
    guard_prompt(JudgeSpec(**asked))


def _endpoint(where: Address) -> "Endpoint":
    """One that is given up soon."""
    from raycib.evals.judge_endpoint import Endpoint  # httpx is slow to import

    return Endpoint(where, **SHORT_PATIENCE)


def check_judge(spec: JudgeSpec, url: str | None, key_env: str | None = None) -> None:
    """Raise `UserError` where a sweep's judge will not do, before anything is trained for it.

    An endpoint has to be there within seconds, take a conversation and say something readable of
    it; one that is busy passes, for later there is more patience. A guard's tokenizer and template
    have to load, in a process of their own. The refusal rule is there.
    """
    if spec.kind == "rule":
        return
    if spec.kind == "guard":
        if spec.profile != "world":
            failing = f"the tokenizer of the judge {spec.source!r} could not be tried"
            asked = spec.model_dump(mode="json")
            in_a_process("raycib.runtime.judge:try_guard", asked, failing)
        return
    where = address(url or spec.source, key_env)
    patience = {"in_flight": 1, "request_timeout_s": 30.0, "tries": 1}
    judge = ChatJudge(where, spec.weights, profile=PROFILES[spec.profile], **patience)
    try:
        _endpoint(where).reach()
        verdict = judge.try_out()
    except NotThere as problem:
        raise UserError(f"nobody answers at the judge's {spec.source}: {problem}") from problem
    except Refused as problem:
        raise UserError(
            f"the judge at {spec.source} refuses a harmless conversation: {problem}"
        ) from problem
    except JudgeUnavailable:
        return
    if verdict.harmful is None:
        raise UserError(
            f"the judge {spec.weights!r} at {spec.source} was asked about a harmless conversation "
            f"and its verdict cannot be read ({verdict.why}): {verdict.raw[:200]!r}; name another "
            "model, or how it is asked with --judge-profile"
        )


def account(
    spec: JudgeSpec, verdict_cache: VerdictCache, pairs: Iterable[Pair], own_world: bool
) -> JudgeAccount:
    """Who judged, and what a reader must know of the verdicts on `pairs`. `own_world`:
    whether what was asked is of the embedded world."""
    asked = list(dict.fromkeys(pairs))
    said = [verdict for pair in asked if (verdict := verdict_cache.get(pair)) is not None]
    unread = Counter(v.why or ANOTHER_FORM for v in said if v.harmful is None)
    foreign = spec.kind == "endpoint"
    asking = PROFILES[spec.profile].asking if foreign else CONVERSATION
    return JudgeAccount(
        name=f"{spec.source} {spec.weights if foreign else spec.weights[:12]}"
        + CONTENT * spec.content,
        key=spec.key,
        profile=spec.profile,
        protected=not foreign,
        sanitised=sum(chat_messages(*p, asking)[1] > 0 for p in asked) if foreign else 0,
        unread=dict(unread.most_common()),
        in_windows=sum(v.windows > 1 for v in said),
        windows=sum(v.windows for v in said),
        unknown_categories=sum(any(c.endswith("?") for c in v.categories) for v in said),
        notes=dict(Counter(note for v in said for note in v.notes)),
        elsewhere=sorted(verdict_cache.sources - {spec.source}) if foreign else [],
        out_of_its_world=spec.profile == "world" and not own_world,
    )
