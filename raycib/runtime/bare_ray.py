"""A Ray of one's own without what nobody asks of it: dashboard, autoscaler, and what collects logs
and metrics for them. These are four processes of Python, more than all else that Ray costs.

Ray 2.60 has a setting for none of them, and starts a part of its dashboard even where it is told
not to. So that is left out where it starts them.
"""

import subprocess
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest.mock import patch

from ray import _raylet
from ray._private import services
from ray._private.node import Node

COMPILED: Any = _raylet

LEFT_OUT = "start_api_server", "start_monitor", "start_log_monitor"
"""The dashboard, the autoscaler, and what sends workers' output to a driver, which takes none."""
AGENT = "--dashboard_agent_command="
NO_AGENT = ("cat",)
"""What the raylet starts in the place of the dashboard's agent, which it must have: it waits for
the end of its input, as the agent does, and that is the end of the raylet."""
PORTS = (
    COMPILED.METRICS_AGENT_PORT_NAME,
    COMPILED.METRICS_EXPORT_PORT_NAME,
    COMPILED.DASHBOARD_AGENT_LISTEN_PORT_NAME,
)
NONE = -1
"""What an agent without a port says, as it is of a Ray that is installed without a dashboard."""


@contextmanager
def bare() -> Iterator[None]:
    """A Ray that starts in the block has its head, a raylet with the agent that makes workers'
    environments, and workers."""
    start_raylet, start_process = Node.start_raylet, services.start_ray_process

    def without_ports(self: Any, *given: Any, **named: Any) -> None:
        for port in PORTS:
            COMPILED.persist_port(self.get_session_dir_path(), self.node_id, port, NONE)
        start_raylet(self, *given, **named)

    def without_agent(command: Sequence[str], *given: Any, **named: Any) -> Any:
        stands_in = AGENT + subprocess.list2cmdline(NO_AGENT)
        changed = [stands_in if part.startswith(AGENT) else part for part in command]
        return start_process(changed, *given, **named)

    with ExitStack() as replaced:
        for name in LEFT_OUT:
            replaced.enter_context(patch.object(Node, name, lambda *_, **__: None))
        replaced.enter_context(patch.object(Node, "start_raylet", without_ports))
        replaced.enter_context(patch.object(services, "start_ray_process", without_agent))
        yield
