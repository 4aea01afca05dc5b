"""Training as a command, for clusters: the notebooks then find its checkpoints.

python -m lgffem_core.systems.lgffem params/demo.yaml --strategy c
./run_all.sh torchrun --nproc-per-node 4 -m lgffem_core.systems.lgffem params/paper.yaml --strategy a --variant released

The first starts compute.devices processes by itself; the second is for several machines.

It holds the profile's lock, as ``./run_all.sh`` does; of torchrun's processes the first holds it for all.
"""

import argparse
import os
import sys
from contextlib import contextmanager, nullcontext

from lgffem_core.base.errors import RequestError, StudyError, plain
from lgffem_core.base.surroundings import foreign
from lgffem_core.config.parameter_files import LARGEST
from lgffem_core.config.params import STRATEGIES
from lgffem_core.config.study import CURRICULUM, VARIANTS, Study
from lgffem_core.run.checklist import missing_data
from lgffem_core.run.request import make_request
from lgffem_core.run.runner import sole_run
from lgffem_core.systems.lgffem.strategies import train_strategy, trained_here
from lgffem_core.training.launch import HELD, holding


def seed_number(text: str) -> int:
    """A seed as typed: a whole number of 0 or more."""
    if not text.isdecimal() or int(text) > LARGEST:
        raise argparse.ArgumentTypeError(f"{text} is not a number from 0 to {LARGEST}")
    return int(text)


@contextmanager
def locked(study: Study):
    """The profile's lock, held for the processes that are started inside too."""
    with sole_run(study), holding():
        yield


def main(arguments: list[str] | None = None) -> int:
    """Train one strategy, and first those that it starts from; 0, or the error's exit code."""
    parser = argparse.ArgumentParser(prog="python -m lgffem_core.systems.lgffem", description=main.__doc__)
    parser.add_argument("params", help="profile, e.g. params/paper.yaml")
    parser.add_argument("--strategy", choices=STRATEGIES, required=True)
    parser.add_argument("--variant", choices=sorted(VARIANTS), default="paper")
    parser.add_argument("--seed", type=seed_number, default=0)
    parser.add_argument("--set", nargs="+", action="extend", default=[], metavar="key=value", dest="pairs")
    options = parser.parse_args(arguments)
    first = os.environ.get("RANK", "0") == "0"  # of torchrun's processes
    for name in foreign(os.environ):
        del os.environ[name]
    try:
        study = make_request(options.params, options.pairs).study
        chain = trained_here(study, options.strategy) or [options.strategy]
        missing = missing_data(study, [CURRICULUM[strategy][0] for strategy in chain])
        if missing:  # in each process before they wait for each other; the first one speaks
            raise RequestError(" ".join(missing))
        with locked(study) if first and HELD not in os.environ else nullcontext():
            trained = train_strategy(study, options.strategy, options.variant, options.seed)
    except StudyError as error:
        if first or not isinstance(error, RequestError):
            print(f"error: {plain(str(error))}", file=sys.stderr)
        return error.exit_code
    if first and HELD not in os.environ:  # else whoever waits for it says so
        print(f"strategy {options.strategy.upper()}: {trained.weights}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
