"""The words of the command line: which commands and options there are, and what is said of those that are none."""

import argparse
from pathlib import Path

from lgffem_core.base.errors import near
from lgffem_core.base.project import PROJECT

COMMANDS = ("verify", "slides", "checkpoint", "doctor", "torchrun", "test", "test-pathml")
DEMO = str(PROJECT / "params" / "demo.yaml")


def parse(arguments: list[str]) -> argparse.Namespace:
    """Options of the commands; without a command's name, ``run`` is meant."""
    parser = argparse.ArgumentParser(
        prog="./run_all.sh", description="Run the study. Also: doctor, torchrun, test, test-pathml.", allow_abbrev=False
    )
    commands = parser.add_subparsers(dest="command", required=True)
    run_parser = commands.add_parser("run", help="run a profile (the default command)", allow_abbrev=False)
    verify_parser = commands.add_parser("verify", help="hold results against their manifest", allow_abbrev=False)
    verify_parser.add_argument("folders", nargs="*", help="folders of results, by default all; with --rerun a profile")
    verify_parser.add_argument(
        "--rerun", action="store_true", help="run a profile again and compare with the reference"
    )
    run_parser.add_argument("params", nargs="?", default=DEMO, help="a profile")
    for some in (run_parser, verify_parser):
        some.add_argument("--set", nargs="+", action="extend", default=[], dest="pairs", metavar="key.path=value")
        some.add_argument("--cores", type=positive, help="how many are used at a time")
    run_parser.add_argument("--cluster", metavar="FOLDER", help="run on a cluster: profiles/slurm, profiles/kubernetes")
    run_parser.add_argument("--dry-run", action="store_true", help="list the jobs and what they ask for; start nothing")
    slides_parser = commands.add_parser("slides", help="make records of whole slides", allow_abbrev=False)
    slides_parser.add_argument("folder", type=folder, help="holds the slides")
    slides_parser.add_argument("params", nargs="?", default=DEMO, help="a profile, whose encoder is used")
    slides_parser.add_argument("--out", type=folder, required=True, metavar="FOLDER", help="where the records go")
    slides_parser.add_argument("--set", nargs="+", action="extend", default=[], dest="pairs", metavar="key.path=value")
    checkpoint_parser = commands.add_parser("checkpoint", help="what a released .pth settles", allow_abbrev=False)
    checkpoint_parser.add_argument("file", type=Path)
    stage_parser = commands.add_parser("notebook", help="execute one stage of a request", allow_abbrev=False)
    stage_parser.add_argument("request", type=Path)
    stage_parser.add_argument("name")
    stage_parser.add_argument("--variant", default="")
    stage_parser.add_argument("--seed", default="")
    synthetic_parser = commands.add_parser("synthetic", help="make a request's synthetic data", allow_abbrev=False)
    synthetic_parser.add_argument("request", type=Path)
    named = arguments and arguments[0] in (*commands.choices, "-h", "--help")
    options, unknown = parser.parse_known_args(arguments if named else ["run", *arguments])
    if unknown:  # told by the command that was meant, which shows its own options
        close = near(unknown[0], ("--set", "--cores", "--cluster", "--dry-run", "--rerun"))
        hint = f"; did you mean {close[0]}?" if close else ""
        commands.choices[options.command].error(f"unrecognized arguments: {' '.join(unknown)}{hint}")
    if options.command == "verify" and options.rerun and len(options.folders) > 1:
        verify_parser.error("--rerun takes one profile")
    if options.command == "verify" and options.pairs and not options.rerun:
        verify_parser.error("--set goes with --rerun, and after the profile: it takes every word behind it")
    return options


def folder(text: str) -> Path:
    """A folder that is named: an empty word, as of a variable that is not set, would be the current one."""
    if not text:
        raise argparse.ArgumentTypeError("names no folder")
    return Path(text)


def positive(text: str) -> int:
    """A number of cores."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a number of 1 or more")
    return int(text)
