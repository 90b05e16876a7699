"""Where the judge's replicas listen: on their node's own address, and not on all it has.

Serve 2.60 gives each replica a port for calls between replicas and binds it to every address
(`"[::]:0"` in ray/serve/_private/replica.py); no setting moves it. It binds after it has made the
replica's own class, so that class can.
"""

from typing import Any

import ray
from ray.serve._private import replica
from ray.serve.llm.ingress import OpenAiIngress

_add_port = replica.add_port_to_grpc_server


def _on_own_address(server: Any, address: str) -> int:
    host = ray.util.get_node_ip_address()
    return _add_port(server, address.replace("[::]", f"[{host}]" if ":" in host else host))


def listen_on_own_address() -> None:
    """Have the replica that this process is about to be listen on its node's address alone: the
    loopback one in a Ray that is started here."""
    replica.add_port_to_grpc_server = _on_own_address


class JudgeIngress(OpenAiIngress):
    """The door to the judge, which Serve's proxy hands requests to."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        listen_on_own_address()
        super().__init__(*arguments, **options)
