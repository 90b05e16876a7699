"""A cluster that begins with a head without CPUs, and Ray's own autoscaler: its nodes are Rays on
this machine, by the provider that Ray tests itself with. (Ray's `AutoscalingCluster` wants a file
that the wheel lacks, and ends every Ray of the machine.)
"""

import json
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from ray_head import Cluster, free_ports, head, own_address
from running import Running

HEAD = "f" * 51 + "00000"
"""What that provider calls the head."""
EMPTY = (
    "setup_commands", "head_setup_commands", "worker_setup_commands", "initialization_commands",
    "head_start_ray_commands", "worker_start_ray_commands", "cluster_synced_files",
)  # fmt: skip
PROVIDER = "ray.autoscaler._private.fake_multi_node.node_provider.FakeMultiNodeProvider"


LOOK = """
import json, sys, time
from ray._raylet import GcsClient
from ray.autoscaler.v2.sdk import get_cluster_resource_state
from ray.core.generated.autoscaler_pb2 import IDLE, RUNNING
gcs = GcsClient(address=sys.argv[1])
while True:
    state = get_cluster_resource_state(gcs)
    there = [n for n in state.node_states if n.status in (RUNNING, IDLE)]
    alive = [n for n in there if n.total_resources.get("CPU")]
    asked = [r for c in state.cluster_resource_constraints for r in c.resource_requests]
    print(json.dumps([len(alive), sum(r.count for r in asked)]), flush=True)
    time.sleep(0.5)
"""


class Seen(NamedTuple):
    """What the autoscaler sees: nodes with CPUs, and bundles that it is asked for."""

    nodes: int
    asked: int


class Growing(NamedTuple):
    """A cluster, and who looks at it."""

    cluster: Cluster
    looking: Running

    def seen(self) -> list[Seen]:
        """Twice a second, from the beginning."""
        return [
            Seen(*json.loads(line)) for line in self.looking.said.splitlines() if line[0] == "["
        ]


@contextmanager
def growing(folder: Path, **types: Mapping[str, float]) -> Iterator[Growing]:
    """Kinds of nodes with their resources, up to four of each; idle ones go after 6 s."""
    kinds = {
        name: {"resources": dict(has), "node_config": {}, "min_workers": 0, "max_workers": 4}
        for name, has in types.items()
    }
    config, (port,) = folder / "autoscaling.json", free_ports(1)
    config.write_text(
        json.dumps(
            {
                "cluster_name": "growing",
                "max_workers": 8,
                "upscaling_speed": 1.0,
                "idle_timeout_minutes": 0.1,
                "provider": {
                    "type": "external",
                    "module": PROVIDER,
                    "launch_multiple": True,
                    "disable_node_updaters": True,
                    "head_node_id": HEAD,
                    "gcs_address": f"{own_address()}:{port}",
                },
                "head_node_type": "ray.head.default",
                **{key: list[str]() for key in EMPTY},
                **{key: dict[str, str]() for key in ("file_mounts", "docker", "auth")},
                "available_node_types": kinds
                | {
                    "ray.head.default": {
                        "resources": {"CPU": 0},
                        "node_config": {},
                        "max_workers": 0,
                    }
                },
            }
        )
    )
    environ = {
        "RAY_FAKE_CLUSTER": "1",
        "AUTOSCALER_UPDATE_INTERVAL_S": "1",
        "RAY_enable_autoscaler_v2": "1",
        "RAY_CLOUD_INSTANCE_ID": HEAD,
        "RAY_OVERRIDE_NODE_ID_FOR_TESTING": HEAD,
        "RAY_NODE_TYPE_NAME": "ray.head.default",
    }
    option = f"--autoscaling-config={config}"
    with head(0, option, host=own_address(), port=port, **environ) as cluster:
        own = {name: value for name, value in cluster.environ.items() if name.startswith("RAY")}
        command = [sys.executable, "-c", LOOK, cluster.gcs]
        looking = Running(command, cluster.temp, folder / "looking", **own)
        try:
            yield Growing(cluster, looking)
        finally:
            looking.kill()
