"""Secrets of a judge's URL are sent to its host and appear nowhere else."""

import base64
import logging

import pytest
from fake_endpoint import FakeEndpoint, refuses, says

from raycib.errors import UserError
from raycib.evals.judge_address import address
from raycib.evals.judge_server import JudgeUnavailable
from raycib.evals.judges import ChatJudge
from raycib.runtime.judge import check_judge, describe_judge

PAIR = [("p", "a")]


@pytest.fixture(autouse=True)
def no_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RAYCIB_JUDGE_API_KEY", "OPENAI_API_KEY"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    ("url", "shown"),
    [("http://localhost:8000", "http://localhost:8000/v1"),
     ("http://localhost:8000/", "http://localhost:8000/v1"),
     ("HTTP://LOCALHOST/v1/", "http://localhost/v1"),
     ("https://h.example/openai/v1/chat/completions", "https://h.example/openai/v1"),
     ("https://h.example/v1beta/openai/", "https://h.example/v1beta/openai"),
     ("https://h.example/serve", "https://h.example/serve/v1"),
     ("https://u:hidden@h.example:8443?key=hidden#x", "https://h.example:8443/v1"),
     ("http://[::1]:8000", "http://[::1]:8000/v1")],
)  # fmt: skip
def test_an_address_is_shown_without_its_secrets(url: str, shown: str) -> None:
    where = address(url)
    assert where.url == shown
    assert "hidden" not in repr(where)
    spec = describe_judge("m", url)
    assert spec.source == shown
    assert "hidden" not in spec.model_dump_json()


@pytest.mark.parametrize(
    "url",
    ["localhost:8000", "u:hidden@localhost:8000", "ftp://u:hidden@h.example", "http://", "", "x",
     "http:///v1", "http://u:hidden@", "http://u:hid den@h.example", "https://h.example:99999",
     "https://h.example:x", "https://u:hidden/1@h.example", "http://u:hidden@h.example",
     "https://u:hidden\u00e9@h.example", "http://a\x00b", "http://[::1", "file:///etc/passwd"],
)  # fmt: skip
def test_a_wrong_url_is_refused_in_a_line_without_its_secrets(url: str) -> None:
    with pytest.raises(UserError) as problem:
        describe_judge("m", url)
    assert "hidden" not in str(problem.value)
    assert "\n" not in str(problem.value)


def test_user_password_and_query_are_sent(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    with FakeEndpoint(lambda body: says("safe")) as server:
        url = f"http://us%40er:hidden@127.0.0.1:{server.port}/?api-version=hidden2"
        assert describe_judge(None, url).weights == "theirs"
        assert ChatJudge(url).judge(PAIR)[0].harmful is False
        coded = base64.b64encode(b"us@er:hidden").decode()
        assert {h["Authorization"] for h in server.headers} == {f"Basic {coded}"}
        assert "/v1/chat/completions?api-version=hidden2" in server.paths
    assert "hidden" not in "".join(r.getMessage() for r in caplog.records if r.name != "httpcore")


def test_a_key_goes_to_its_own_host_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-open")
    assert address("https://api.openai.com/v1").authorization == "Bearer sk-open"
    for other in ("https://h.example", "https://api.openai.com.h.example", "http://localhost"):
        assert address(other).authorization is None
    monkeypatch.setenv("RAYCIB_JUDGE_API_KEY", "sk-own")
    monkeypatch.setenv("MY_KEY", "sk-named\n")
    assert address("https://h.example").authorization == "Bearer sk-own"
    assert address("https://h.example", "MY_KEY").authorization == "Bearer sk-named"
    assert address("https://u:p@h.example", "MY_KEY").authorization != "Bearer sk-named"
    with FakeEndpoint(lambda body: says("safe")) as server:
        ChatJudge(server.url, "m").judge(PAIR)
        assert server.headers[0]["Authorization"] == "Bearer sk-own"


def test_a_key_is_not_sent_unencrypted_over_a_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAYCIB_JUDGE_API_KEY", "sk-own")
    for far in ("http://h.example", "http://10.0.0.5:8000", "http://localhost.h.example"):
        with pytest.raises(UserError, match="would be sent unencrypted"):
            address(far)
    for near in ("http://127.0.0.1:8000", "http://localhost", "http://[::1]", "https://10.0.0.5"):
        assert address(near).authorization == "Bearer sk-own"


def test_a_key_that_is_none_is_refused_without_showing_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_KEY", "sk-na med")
    for name, says_why in (("MY_KEY", "MY_KEY holds no key"), ("NO_KEY", "NO_KEY is empty")):
        with pytest.raises(UserError, match=says_why) as problem:
            describe_judge("m", "https://h.example", None, name)
        assert "sk-" not in str(problem.value)
    with pytest.raises(UserError, match="give that too"):
        describe_judge("world:guard", None, None, "MY_KEY")


def test_a_server_that_repeats_the_key_does_not_get_it_into_an_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("RAYCIB_JUDGE_API_KEY", "sk-own-1234")
    reply = refuses("bad key sk-own-1234 \x1b[31m", "sk-own-1234", 401)
    with FakeEndpoint(lambda body: reply) as server:
        with pytest.raises(JudgeUnavailable, match=r"bad key \*\*\*") as problem:
            ChatJudge(server.url, "m", tries=1).judge(PAIR)
        with pytest.raises(UserError, match=r"bad key \*\*\*"):
            check_judge(describe_judge("m", server.url), server.url)
    assert "sk-own" not in str(problem.value)
    assert "\x1b" not in str(problem.value)
    filtered = refuses("flagged: Bearer sk-own-1234")
    with FakeEndpoint(lambda body: filtered if "TRIGGER" in str(body) else says("safe")) as server:
        _, unread = ChatJudge(server.url, "m", in_flight=1).judge([*PAIR, ("p", "TRIGGER")])
    assert unread.raw == "HTTP 400: flagged: Bearer ***"


def test_a_redirect_is_not_followed_with_the_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAYCIB_JUDGE_API_KEY", "sk-own")
    with FakeEndpoint(lambda body: says("safe")) as other:
        headers = {"Location": f"{other.url}/v1/chat/completions"}
        with (
            FakeEndpoint(lambda body: (307, {}), headers=headers) as server,
            pytest.raises(JudgeUnavailable, match=f"redirects to {other.url}"),
        ):
            ChatJudge(server.url, "m", tries=1).judge(PAIR)
        assert not other.paths
