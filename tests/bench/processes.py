"""What a program and all that it starts cost: CPU seconds by process and phase, memory, torch."""

import json
import os
import secrets
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

PROBE = Path(__file__).parent / "probe"
EVERY_S, DEEP = 0.5, 4
"""Between looks at CPU times; every so many memory is looked at too, which costs more."""
TICK = os.sysconf("SC_CLK_TCK")
OUTSIDE = "native threads"
"""CPU time that no Python thread has, or that of a program in another language."""


@dataclass
class Process:
    """One process, as it was last seen."""

    pid: int
    title: str = ""
    cpu: float = 0.0
    """Seconds, in user and kernel mode, without what watching it cost."""
    memory: int = 0
    """The most bytes it held; pages that processes share are divided among them."""
    torch: bool = False
    """Whether it ever mapped torch."""
    phases: dict[str, float] = field(default_factory=dict)
    """CPU seconds; their sum is `cpu`."""


@dataclass
class Watched:
    """A program that ended."""

    processes: list[Process]
    memory: int
    """The most bytes that all its processes held at once."""
    seconds: float
    code: int

    @property
    def cpu(self) -> float:
        """Seconds of all its processes."""
        return sum(one.cpu for one in self.processes)

    @property
    def torch(self) -> int:
        """Processes that loaded torch."""
        return sum(one.torch for one in self.processes)


def watched(
    command: Sequence[str],
    phases: Sequence[tuple[str, str, str]] = (),
    log: Path | None = None,
    **environment: str,
) -> Watched:
    """Run a program to its end. `phases`: (last two parts of a file's path, function, phase)."""
    mark = f"RAYCIB_BENCH={secrets.token_hex(8)}"
    seen: dict[tuple[int, str], Process] = {}
    others: set[tuple[int, str]] = set()
    most = looks = 0
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder, (log or Path(os.devnull)).open("w") as out:
        own = dict([mark.split("=")]) | {
            "RAYCIB_BENCH_PROBE": folder,
            "RAYCIB_BENCH_PHASES": json.dumps(list(phases)),
            "PYTHONPATH": f"{PROBE}:{os.environ.get('PYTHONPATH', '')}",
        }
        program = subprocess.Popen(
            command, env=os.environ | own | environment, stdout=out, stderr=out
        )
        while True:
            ended = _has_ended(program)
            most = max(most, _look(mark, seen, others, looks % DEEP == 0))
            looks += 1
            if ended:
                break
            time.sleep(EVERY_S)
        program.wait()
        for process in seen.values():
            file = Path(folder) / f"{process.pid}.json"
            process.phases = json.loads(file.read_text()) if file.exists() else {}
            process.cpu = max(0.0, process.cpu - process.phases.pop("probe", 0.0))
            inside = sum(process.phases.values())
            process.phases[OUTSIDE] = max(0.0, process.cpu - inside)
    found = sorted(seen.values(), key=lambda one: -one.cpu)
    return Watched(found, most, time.monotonic() - began, program.returncode)


def _has_ended(program: subprocess.Popen[bytes]) -> bool:
    """Its times can still be read: nobody has waited for it."""
    how = os.WEXITED | os.WNOHANG | os.WNOWAIT
    return os.waitid(os.P_PID, program.pid, how) is not None


def _look(
    mark: str, seen: dict[tuple[int, str], Process], others: set[tuple[int, str]], deep: bool
) -> int:
    """Bring `seen` up to date; bytes that its processes hold now, where it is looked at."""
    held = 0
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        with suppress(OSError, ValueError):
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
            key = int(entry.name), fields[19]  # its start tells it from a later one of that id
            if key in others:
                continue
            if key not in seen:
                if mark.encode() not in (entry / "environ").read_bytes():
                    uptime = float(Path("/proc/uptime").read_text().split()[0])
                    if uptime - int(key[1]) / TICK > 2:  # it has long become what it is
                        others.add(key)
                    continue
                seen[key] = Process(key[0])
            one = seen[key]
            one.cpu = (int(fields[11]) + int(fields[12])) / TICK
            title = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode().strip()
            one.title = title or one.title
            if not deep:
                continue
            one.torch = one.torch or "libtorch_cpu" in (entry / "maps").read_text()
            now = _held(entry)
            one.memory = max(one.memory, now)
            held += now
    return held


def _held(entry: Path) -> int:
    for line in (entry / "smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    return 0


def table(
    run: Watched, name_of: Callable[[Process], str], columns: Mapping[str, str] | None = None
) -> list[str]:
    """Lines of the waterfall: CPU seconds by kind of process and phase, and peak memory."""
    kinds: dict[str, list[Process]] = {}
    for one in run.processes:
        kinds.setdefault(name_of(one), []).append(one)
    totals: dict[str, float] = {}
    for one in run.processes:
        for phase, seconds in one.phases.items():
            totals[phase] = totals.get(phase, 0.0) + seconds
    phases = [phase for phase, total in sorted(totals.items(), key=lambda x: -x[1]) if total > 0.5]
    head = "".join(f"{phase:>{max(8, len(phase) + 2)}}" for phase in phases)
    lines = [f"{'process':34}{'CPU s':>8}{head}{'MiB':>8}{'torch':>7}"]

    def line(name: str, own: Sequence[Process], memory: int) -> str:
        cells = "".join(
            f"{sum(one.phases.get(phase, 0.0) for one in own):>{max(8, len(phase) + 2)}.1f}"
            for phase in phases
        )
        cpu, torch = sum(one.cpu for one in own), sum(one.torch for one in own)
        return f"{name:34}{cpu:>8.1f}{cells}{memory / 2**20:>8,.0f}{torch:>7}"

    for kind, own in sorted(kinds.items(), key=lambda x: -sum(one.cpu for one in x[1])):
        name = f"{kind} x {len(own)}" if len(own) > 1 else kind
        lines.append(line(name, own, sum(one.memory for one in own)))
    lines.append(line("all (memory: the most at once)", run.processes, run.memory))
    return lines
