"""The methods that every invariance is tested for: a new method adds its cases here."""

from raycib.spec import CIB, MethodSpec, PlainLoRA

# 8 of at most 32 queued rows are negatives, so that with 16 rows a step the contrast starts at
# the second step and the queue overflows at the third.
_SMALL = {"queue_size": 32, "num_negatives": 8}

METHODS: dict[str, MethodSpec] = {
    "lora": PlainLoRA(),
    "cib": CIB(lam=1.0, **_SMALL),
    "cib, hardest at the last prompt token": CIB(
        lam=2.0, draw="hardest", pooling="last_prompt_token", layer="before_norm", **_SMALL
    ),
    "cib, recent and current": CIB(
        lam=1.0, queue="recent", negatives="current", max_age=2, pooling="last_token", **_SMALL
    ),
    "cib, most similar": CIB(
        lam=0.5, draw="most_similar", pooling="mean_all", exclude_self=False, **_SMALL
    ),
    "cib, semihard and centred": CIB(lam=1.0, draw="semihard", center=True, **_SMALL),
}


def at_zero(method: MethodSpec) -> MethodSpec:
    """The same method at strength zero."""
    match method:
        case PlainLoRA():
            return method
        case CIB():
            return method.model_copy(update={"lam": 0.0})


def works_live(method: MethodSpec) -> bool:
    """Whether the method can do without cached references: no batch knows the task's mean."""
    return not (isinstance(method, CIB) and method.center)
