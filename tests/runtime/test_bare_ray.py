"""A Ray of one's own has the processes that a sweep needs, and can do what Tune, Train and Serve
ask of it."""

import json

import pytest
from running import program, ray_folder

STARTED = """
import json, os, psutil, ray, time
from raycib.config.presets import PRESETS
from raycib.runtime.cluster import connect

own = connect(PRESETS["world"].execution)

@ray.remote(num_cpus=0)
def told():
    return os.environ.get("TOLD")

said = ray.get([told.remote(), told.options(runtime_env={"env_vars": {"TOLD": "it"}}).remote()])
at_work = psutil.Process().children(recursive=True)
names = [one.name() for one in at_work]
[raylet] = [one for one in at_work if one.name() == "raylet"]
[stands_in] = [one for one in at_work if one.name() == "cat"]
raylet.kill()
print(json.dumps([said, names, own.dashboard]))
_, left = psutil.wait_procs([stands_in], timeout=20)
print(json.dumps([one.name() for one in left]))
own.close()
"""


@pytest.mark.real
def test_a_ray_of_ones_own_has_no_process_that_nobody_asks() -> None:
    """Where the raylet goes, what stands in for the dashboard's agent goes as that would."""
    with ray_folder() as temp:
        done = program(temp, "-c", STARTED)
    assert done.returncode == 0, done.stderr
    lines = [line for line in done.stdout.splitlines() if line.startswith("[")]
    said, names, dashboard = json.loads(lines[0])
    assert said == [None, "it"] and dashboard == ""
    others = {name for name in names if "ray::" not in name and "python" not in name}
    assert others == {"gcs_server", "raylet", "cat"}
    assert "ray::RuntimeEnvAgent" in names and "ray::DashboardAgent" not in names
    assert json.loads(lines[-1]) == []
