"""Ray where it is not: one line within a minute, and no process left behind."""

from collections.abc import Callable

import pytest
from no_cluster import REFUSED, Connected


@pytest.mark.real
def test_what_is_no_cluster_is_refused_in_one_line_within_a_minute_and_leaves_no_process(
    connecting: Callable[[], list[Connected]],
) -> None:
    *refused, silent, failed = connecting()
    assert len(refused) == len(REFUSED)
    for one, (address, why) in zip(refused, REFUSED.items(), strict=True):
        assert one.said.startswith(f"RAY_ADDRESS={address}: ")
        assert why in one.said and "\n" not in one.said
        assert one.said.endswith("or unset RAY_ADDRESS for a Ray of your own")
    assert silent.said.startswith("RAY_ADDRESS=127.0.0.1:")
    assert failed.said.startswith("Ray does not start on this machine: ")
    assert failed.left == []
    assert max(one.seconds for one in (*refused, silent)) < 60
