"""A hub that does not answer is asked once, and what is missing is said in one line."""

import re
import socket
import threading
from collections.abc import Iterator

import datasets
import pytest
from huggingface_hub import constants

from raycib.data.hub import hub_table
from raycib.errors import NotHere
from raycib.model_files import find
from raycib.offline import tried_once


@pytest.fixture
def tries(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """A hub that hangs up on everybody; one entry a try."""
    found: list[int] = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def hang_up() -> None:
            while True:
                try:
                    line, _ = server.accept()
                except OSError:  # it was closed: the test is over
                    return
                found.append(1)
                line.close()

        threading.Thread(target=hang_up, daemon=True).start()
        monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{server.getsockname()[1]}")
        for flag in (constants, datasets.config):
            monkeypatch.setattr(flag, "HF_HUB_OFFLINE", False)
        yield found
        server.shutdown(socket.SHUT_RDWR)


def test_a_silent_hub_is_asked_once_for_models_sets_and_files(tries: list[int]) -> None:
    said = re.escape(f"{constants.ENDPOINT} does not answer, and it was not fetched before")
    for _ in range(2):
        with pytest.raises(NotHere, match=f"model 'nobody/has-this' .*: {said}"):
            find("nobody/has-this")
        for name in ("nobody/has-this:train", "nobody/has-this/rows.jsonl"):
            with pytest.raises(NotHere, match=f"data set '{name}' could not be loaded: {said}"):
                hub_table(name)
    with pytest.raises(ValueError, match="no such split"), tried_once():
        raise ValueError("no such split")  # of a set that was fetched: nothing is missing
    assert len(tries) == 1
    assert not constants.HF_HUB_OFFLINE and not datasets.config.HF_HUB_OFFLINE


def test_who_asked_for_no_network_is_told_what_the_hub_says(tries: list[int], monkeypatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(ValueError, match="own words"), tried_once():
        raise ValueError("own words")
    with pytest.raises(NotHere, match="outgoing traffic has been disabled"):
        find("nobody/has-this")
    assert not tries
