"""What becomes of a judge's server's reply: a value, another try, or no verdict and why."""

import json
from typing import Any

import pytest

from raycib.evals.judge_reply import Malformed, Refused, content, models


def replied(status: int, body: Any, **headers: str) -> Any:
    text = body if isinstance(body, str) else json.dumps(body)
    told = {name.replace("_", "-"): value for name, value in headers.items()}
    return content(status, told, text, lambda said: said.replace("sk-1", "***"))


@pytest.mark.parametrize("beside", [{}, {"error": None}, {"error": {"code": 500}}])
def test_a_reply_with_choices_is_one_whatever_stands_beside_them(beside: dict[str, Any]) -> None:
    body = {"choices": [{"message": {"content": "safe"}}], **beside}
    assert replied(200, body) == replied(299, body) == body


@pytest.mark.parametrize(
    ("status", "body", "why", "lasting"),
    [
        (400, {"error": {"code": "context_length_exceeded"}}, "too long for the judge", False),
        (200, {"error": {"code": 400, "message": "input is too long"}}, "too long for the judge",
         False),
        (413, "", "too long for the judge", False),
        (400, {"error": {"message": "the prompt was flagged"}}, "filtered by the judge's server",
         False),
        (422, {"detail": [{"msg": "no such field"}]}, "refused with HTTP 422", False),
        (401, {"error": {"message": "sk-1 is no key"}}, "refused with HTTP 401", True),
        (300, "", "refused with HTTP 300", True),
        (399, "", "refused with HTTP 399", True),
        (429, {"error": {"code": "insufficient_quota"}}, "refused with HTTP 429", True),
        (500, {"error": {"code": "invalid_api_key"}}, "refused with HTTP 500", True),
    ],
)  # fmt: skip
def test_what_asking_again_does_not_change_is_refused(
    status: int, body: Any, why: str, lasting: bool
) -> None:
    """What is about one conversation costs one verdict; what lasts ends the judging."""
    with pytest.raises(Refused) as found:
        replied(status, body)
    assert (found.value.why, found.value.lasting) == (why, lasting)
    assert "sk-1" not in str(found.value)


@pytest.mark.parametrize(
    ("status", "body", "after", "pause"),
    [
        (200, '{"choices": [', "", 0), (200, "null", "", 0), (200, {"error": "overloaded"}, "", 0),
        (200, {"error": {"code": 503}}, "2", 2), (199, {"choices": []}, "", 0),
        (200, {"error": {"code": 7, "message": "busy"}}, "", 0),
        (429, {}, "7", 7), (500, {}, "-7", 0), (503, {}, "61", 60), (503, {}, "soon", 0),
        (408, "", "Fri, 01 Jan 2100 00:00:00 GMT", 60), (503, {}, "nan", 0), (503, {}, "inf", 60),
    ],
)  # fmt: skip
def test_what_may_pass_is_asked_again_when_the_server_wishes(
    status: int, body: Any, after: str, pause: float
) -> None:
    """At most a minute later."""
    with pytest.raises(Malformed) as found:
        replied(status, body, Retry_After=after)
    assert found.value.pause_s == pause


def test_only_a_list_of_models_names_some() -> None:
    assert models({"data": [{"id": "a"}, {"id": 3}, "b", {}]}) == ["a"]
    for reply in ({"data": {}}, [], None):
        with pytest.raises(Malformed, match="no list of models"):
            models(reply)
