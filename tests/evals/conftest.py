"""What tests of judges share."""

from collections.abc import Iterator

import pytest
from fake_judge import FakeJudge


@pytest.fixture
def fake() -> Iterator[FakeJudge]:
    server = FakeJudge()
    yield server
    server.close()
