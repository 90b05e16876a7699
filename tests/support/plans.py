"""Plans of sweeps that are never run."""

from dataclasses import replace

from raycib.methods.cib import CIB
from raycib.runtime.build import build_config
from raycib.runtime.options import Options
from raycib.runtime.planning.estimate import Estimate, estimate
from raycib.runtime.planning.fit import fitted
from raycib.runtime.planning.machine import Machine, machine_of
from raycib.runtime.planning.reader import Assumed
from raycib.runtime.sweep import Sweep
from raycib.studies.strength import Strength


def planned(options: Options, *methods: object, reader: Assumed | None = None) -> Sweep:
    """A sweep of some methods; what is not at hand is assumed where the `reader` does so."""
    setup = build_config(replace(options, dry_run=True), Strength(), reader)
    return Sweep(setup, setup.runs_of(methods or [CIB(lam=0), CIB(lam=1)]))  # type: ignore[arg-type]


def numbers(sweep: Sweep, where: Machine | None = None) -> Estimate:
    """Of all that it has to do, spread so that it fits a machine."""
    where = where or machine_of(sweep.setup.options, sweep.setup.execution)
    execution, _ = fitted(sweep, where)
    sweep.setup = replace(sweep.setup, execution=execution)
    return estimate(sweep, sweep.plan(1), where)
