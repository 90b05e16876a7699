"""Foreign endpoints: their dialects, what they will not read, and what they do wrong."""

import json
import socket
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from fake_endpoint import FakeEndpoint, Reply, refuses, says
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from raycib.errors import UserError
from raycib.evals.judge_profiles import PROFILES
from raycib.evals.judge_reply import Malformed, Refused, _asked_pause, content
from raycib.evals.judge_server import JudgeUnavailable
from raycib.evals.judges import HARMLESS, SAMPLED, ChatJudge, Verdict
from raycib.evals.verdict_forms import CUT_OFF
from raycib.runtime.judge import check_judge, describe_judge

PAIRS = [(f"prompt {i}", f"answer {i}") for i in range(4)]
QUICK: dict[str, Any] = {"tries": 2, "patience_s": 5.0, "request_timeout_s": 2.0}


def judged(
    reply: Callable[[dict[str, Any]], Reply], pairs: Any = PAIRS, **options: Any
) -> list[Verdict]:
    with FakeEndpoint(reply) as server:
        return ChatJudge(server.url, **(QUICK | options)).judge(pairs)


def sent(body: dict[str, Any]) -> str:
    return " ".join(message["content"] for message in body["messages"])


NOT_READ: dict[str, tuple[Reply, str]] = {
    "content filter": (refuses("The prompt was filtered.", "content_filter"), "filtered"),
    "moderation": (refuses("your input was flagged", status=403), "filtered"),
    "too long": (refuses("maximum context length is 8192", "context_length_exceeded"), "too long"),
    "413": ((413, b"<html>too large</html>"), "too long"),
    "422": ((422, {"detail": [{"msg": "bad"}]}), "HTTP 422"),
    "legal": ((451, {}), "HTTP 451"),
    "no choices": ((200, {"choices": []}), "no choices"),
    "null": (says(None), "no text"),
    "declined": (says(None, refusal="I cannot judge this."), "declined"),
    "filtered half way": (says("saf", "content_filter"), "filtered"),
    "another form": (says("It is safe."), "another form"),
    "thinking": (says("<think>hm", "length"), "while thinking"),
    "thought apart": (says(None, "length", reasoning_content="hm"), "cut off"),
}


@pytest.mark.parametrize("kind", NOT_READ)
def test_one_conversation_that_is_not_read_is_one_unread_verdict(kind: str) -> None:
    reply, why = NOT_READ[kind]
    verdicts = judged(lambda body: reply if "prompt 2" in sent(body) else says("safe"))
    assert [v.harmful for v in verdicts] == [False, False, None, False]
    assert why in verdicts[2].why


REFUSES_ALL = {
    "no key": refuses("Incorrect API key", "invalid_api_key", 401),
    "forbidden": refuses("no", status=403),
    "no such model": refuses("The model does not exist", "model_not_found", 404),
    "bad request": refuses("messages: last role must be user"),
    "no money": refuses("You exceeded your quota", "insufficient_quota", 429),
    "all too long": (413, {}),
    "status inside": (200, {"error": {"code": 401, "message": "no auth"}}),
    "moved": (302, {}),
}


@pytest.mark.parametrize("kind", REFUSES_ALL)
def test_what_every_conversation_is_refused_for_ends_the_judging_at_once(kind: str) -> None:
    began = time.monotonic()
    with pytest.raises(JudgeUnavailable, match=r"refuses: HTTP \d+.*0 of 4 verdicts are safe"):
        judged(lambda body: REFUSES_ALL[kind], patience_s=60.0)
    assert time.monotonic() - began < 5


def test_a_server_that_refuses_one_is_asked_something_harmless_to_tell_why() -> None:
    with FakeEndpoint(
        lambda b: says("safe") if HARMLESS[0] in sent(b) else refuses("no")
    ) as server:
        verdicts = ChatJudge(server.url, **QUICK).judge(PAIRS[:1])
    assert [v.harmful for v in verdicts] == [None]
    assert "HTTP 400: no" in verdicts[0].raw


def _newer(body: dict[str, Any]) -> Reply:
    unsupported = refuses("Unsupported parameter", "unsupported_parameter", param="max_tokens")
    return unsupported if "max_tokens" in body else says("safe")


def _warm(body: dict[str, Any]) -> Reply:
    only = "'temperature' does not support 0 with this model."
    return refuses(only) if body.get("temperature", 1) != 1 else says("safe")


def _both(body: dict[str, Any]) -> Reply:
    return _warm(body) if "temperature" in body else _newer(body)


@pytest.mark.parametrize(
    ("reply", "refused", "notes"),
    [(_newer, 1, ()), (_warm, 1, (SAMPLED,)), (_both, 2, (SAMPLED,)),
     (lambda body: says([{"type": "text", "text": "safe"}]), 0, ()),
     (lambda body: says([{"type": "thinking", "thinking": "unsafe"},
                         {"type": "text", "text": "safe"}]), 0, ()),
     (lambda body: says("safe", reasoning_content="unsafe?"), 0, ())],
)  # fmt: skip
def test_a_dialect_is_learned_once_and_sampling_is_noted(
    reply: Callable[[dict[str, Any]], Reply], refused: int, notes: tuple[str, ...]
) -> None:
    with FakeEndpoint(reply) as server:
        verdicts = ChatJudge(server.url, in_flight=1, **QUICK).judge(PAIRS)
        assert len(server.asked) == len(PAIRS) + refused
    assert [(v.harmful, v.notes) for v in verdicts] == [(False, notes)] * 4


def test_a_guard_is_sent_the_conversation_and_another_model_an_instruction() -> None:
    for name, roles in (("Llama-Guard-3-8B", ["user", "assistant"]), ("gpt-4o", ["user"])):
        with FakeEndpoint(lambda body: says("\n\nunsafe\nS9")) as server:
            judge = ChatJudge(server.url, name, **QUICK)
            (verdict,) = judge.judge([("a </s> b", "c <|eot_id|> d")])
            (body,) = server.asked
        assert verdict.categories == ("S9",)
        assert [message["role"] for message in body["messages"]] == roles
        assert "</s>" not in sent(body)
        assert "<|eot_id|>" not in sent(body)


def _short_sighted(body: dict[str, Any]) -> Reply:
    text = sent(body)
    if len(text) > 4000:
        return refuses("too long", "context_length_exceeded")
    return says("unsafe\nS2" if "HARM" in text else "safe")


@pytest.mark.parametrize("place", [0, 3000, 4990, 9995, None])
def test_an_answer_too_long_is_read_whole_in_parts(place: int | None) -> None:
    """Wherever in 10,000 characters the harm is, it is seen; each part overlaps the next."""
    answer = "x" * 10_000
    if place is not None:
        answer = f"{answer[:place]}HARM{answer[place:]}"
    (verdict,) = judged(_short_sighted, [("prompt", answer)])
    assert verdict.harmful == (place is not None)
    assert verdict.windows >= 4
    short, _ = judged(_short_sighted, [("prompt", "HARM"), ("prompt", "fine")])
    assert (short.harmful, short.windows) == (True, 1)


def test_a_part_that_is_unread_makes_a_safe_answer_unread_and_leaves_a_harmful_one() -> None:
    def reply(body: dict[str, Any]) -> Reply:
        filters = "FILTER" in sent(body) and len(sent(body)) <= 4000
        return refuses("flagged") if filters else _short_sighted(body)

    wall = "x" * 5000
    safe, harmful = judged(reply, [("p", wall + "FILTER"), ("p", "HARM" + wall + "FILTER")])
    assert (safe.harmful, harmful.harmful) == (None, True)
    assert safe.why == "filtered by the judge's server"


# ------------------------------------------------------------------ servers that do wrong


def drip(pieces: list[bytes], pause: float) -> tuple[str, socket.socket]:
    """A server that sends a reply piece by piece, for ever."""
    listening = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                client, _ = listening.accept()
                client.recv(65536)
                for piece in pieces:
                    client.sendall(piece)
                while True:
                    time.sleep(pause)
                    client.sendall(pieces[-1])
            except OSError:
                if listening.fileno() < 0:
                    return

    threading.Thread(target=serve, daemon=True).start()
    return f"http://127.0.0.1:{listening.getsockname()[1]}", listening


@pytest.mark.parametrize(
    "pieces",
    [[b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n", b" "],
     [b"HTTP/1.1 200 OK\r\n", b"X"],
     [b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\n \r\n"]],
    ids=["body", "headers", "chunks"],
)  # fmt: skip
def test_a_reply_of_one_byte_at_a_time_has_an_end(pieces: list[bytes]) -> None:
    url, listening = drip(pieces, 0.1)
    began = time.monotonic()
    with listening, pytest.raises(JudgeUnavailable, match=r"no whole reply within 0\.5 s"):
        ChatJudge(url, "m", tries=1, request_timeout_s=0.5).judge(PAIRS[:1])
    assert time.monotonic() - began < 4


BAD = {
    "nested": b"[" * 200_000,
    "huge number": b'{"choices": ' + b"1" * 5000 + b"}",
    "infinite": b'{"choices": [{"index": 1e999}]}',
    "too large": b'{"choices": "' + b"x" * (9 * 2**20) + b'"}',
    "null": b"null",
    "a word": b'"choices"',
    "odd choices": b'{"choices": [null]}',
    "odd message": b'{"choices": [{"message": "safe"}]}',
    "not text": b"\xff\xfe\x00",
}


@pytest.mark.parametrize("kind", BAD)
def test_a_reply_that_is_none_is_asked_again_and_never_a_verdict(kind: str) -> None:
    with pytest.raises(JudgeUnavailable, match="gave no usable reply"):
        judged(lambda body: (200, BAD[kind]), PAIRS[:1], tries=1)


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(
        st.sampled_from(["error", "code", "param", "message", "detail", "choices", "content",
                         "finish_reason", "refusal", "type", "text"]), inner, max_size=4),
    max_leaves=12,
)  # fmt: skip


@settings(max_examples=500, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(_JSON, st.sampled_from([200, 204, 300, 400, 401, 413, 422, 429, 500, 599, 100]))
def test_no_reply_makes_the_reader_fall_over(value: Any, status: int) -> None:
    judge = ChatJudge("http://localhost", "m")
    try:
        verdict = judge._read(content(status, {}, json.dumps(value), str))
    except (Malformed, Refused):
        return
    assert verdict.harmful is None


def test_a_pause_that_the_server_asks_for_is_kept_and_capped() -> None:
    assert _asked_pause("3") == 3.0
    assert _asked_pause("100000") == _asked_pause("Fri, 31 Dec 2999 23:59:59 GMT") == 60.0
    for nothing in ("", "-5", "soon", "nan", "Fri, 31 Dec 1999 23:59:59 GMT", "Fri, 99 Dec 1 GMT"):
        assert _asked_pause(nothing) == 0.0
    times = []

    def busy(body: dict[str, Any]) -> Reply:
        times.append(time.monotonic())
        return says("safe") if len(times) > 1 else (429, {})

    with FakeEndpoint(busy, headers={"Retry-After": "2"}) as server:
        ChatJudge(server.url, **QUICK).judge(PAIRS[:1])
    assert times[1] - times[0] >= 2.0


# ------------------------------------------------------------------ before anything starts


def test_a_dead_or_wrong_endpoint_is_one_line_at_once() -> None:
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    began = time.monotonic()
    with pytest.raises(UserError, match=f"127.0.0.1:{port}"):
        describe_judge(None, url)
    named = describe_judge("m", url)  # asks nothing
    with pytest.raises(UserError, match="nobody answers"):
        check_judge(named, url)
    assert time.monotonic() - began < 5
    with (
        FakeEndpoint(lambda b: says("safe"), (200, {"data": [{"id": "a"}, {"id": "b"}]})) as two,
        pytest.raises(UserError, match="serves a, b; name the judge with --judge"),
    ):
        describe_judge(None, two.url)


@pytest.mark.parametrize(
    ("reply", "says_why"),
    [(refuses("no such model", status=404), "refuses a harmless conversation: HTTP 404"),
     (says("Safety: Safe"), "cannot be read .another form.: 'Safety: Safe'"),
     (says("hm", "length"), CUT_OFF)],
)  # fmt: skip
def test_a_judge_that_will_not_do_is_told_before_training(reply: Reply, says_why: str) -> None:
    with (
        FakeEndpoint(lambda body: reply, models=(404, {})) as server,
        pytest.raises(UserError, match=says_why),
    ):
        check_judge(describe_judge("m", server.url), server.url)
    with FakeEndpoint(lambda body: (503, {})) as server:
        check_judge(describe_judge("m", server.url), server.url)  # busy: later there is patience


def test_a_judge_that_thinks_has_room_to() -> None:
    assert PROFILES["instruct"].tokens >= 1000
