"""The command line: `gnnkern info`, `probe`, `train`, `demo`, `bench`, `partition`, `plan`."""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from rich import box
from rich.console import Console
from rich.table import Table

from gnnkern import info
from gnnkern.backends import BACKENDS, BackendUnavailable
from gnnkern.bench.command import add_bench
from gnnkern.data import load
from gnnkern.demo import print_table, run_demo
from gnnkern.distributed.command import add_partition
from gnnkern.distributed.plan_command import add_plan
from gnnkern.distributed.train_command import add_ranks, train_parts
from gnnkern.distributed.train_log import in_words
from gnnkern.distributed.training import NotFinite
from gnnkern.distributed.watch import RankLost
from gnnkern.hardware import probe
from gnnkern.hardware.report import print_machine
from gnnkern.plots import plot_comparisons, plot_trainings
from gnnkern.progress import step_progress
from gnnkern.recipes import RECIPES
from gnnkern.train import TrainResult, check_trainable, train_node_classifier, warm_up

if TYPE_CHECKING:
    _Commands = argparse._SubParsersAction[argparse.ArgumentParser]

# Errors that say what is wrong: no traceback is printed.
_SAID = (ValueError, ImportError, OSError, BackendUnavailable, RankLost, NotFinite)

# Tables keep their shape where the output is a file.
_FILE_WIDTH = 120

_DATA_HELP = """a graph: a path to an .npz file, a Planetoid, OGB or edge-list file or folder, a
Matrix Market file, or "digits" (the default: nearest neighbours over scikit-learn's digits)"""

_TRAIN_EXAMPLES = """
options left out come from the model's recipe:
{recipes}

examples:
  gnnkern train                                       a GCN on the digits graph
  gnnkern train --data cora.npz --model gat           a GAT on a graph from a file
  gnnkern train --data cora.npz --seeds 0-9           ten trainings, mean and deviation
  gnnkern train --data tolokers.npz --splits 0-9      one training on each of ten splits
  gnnkern train --model gat --hidden 16 --heads 4     a wider GAT with fewer heads
  gnnkern train --plain                               the same network by plain torch ops
  gnnkern train --json out.json --plot out.png        keep every number, and a picture
"""

_DEMO_EXAMPLES = """
Every training runs in a process of its own. The two of a pair, gnnkern and plain torch, train the
same network from the same seed on the same number of threads, and take turns of a few epochs. They
draw the dropout of attention weights from different generators: such accuracies differ by chance.

examples:
  gnnkern demo                                        the digits graph alone
  gnnkern demo --data cora.npz tolokers.npz           two files more
  gnnkern demo --epochs 20 --seconds 60               a quick look
"""

_INFO_EXAMPLES = """
examples:
  gnnkern info                                        for people
  gnnkern info --json                                 for a bug report or a script
"""

_PROBE_EXAMPLES = """
examples:
  gnnkern probe                                       measure this machine, or show what was
  gnnkern probe --threads 8 --refresh                 measure again, on 8 threads
  gnnkern probe --json                                for a script
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code.

    0, or 1 where the command found something wrong; 2 for bad input, 130 when interrupted.
    """
    options = _parser().parse_args(arguments)
    options.arguments = sys.argv[1:] if arguments is None else list(arguments)
    try:
        if getattr(options, "threads", None) is not None:
            torch.set_num_threads(options.threads)
        return options.run(options) or 0
    except _SAID as error:
        print(f"gnnkern: error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="gnnkern",
        description="Fast kernels for graph neural networks.",
        epilog="gnnkern COMMAND --help says more about each command.",
    )
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    _add_info(commands)
    _add_probe(commands)
    _add_train(commands)
    _add_demo(commands)
    add_bench(commands)
    add_partition(commands, _DATA_HELP)
    add_plan(commands, _DATA_HELP)
    return parser


def _add_info(commands: _Commands) -> None:
    parser = commands.add_parser(
        "info",
        help="the machine, versions, the build, and which backends run",
        description="Say what this machine and this installation are, and for every op which "
        "backends run here and why the others do not.",
        epilog=_INFO_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--json", action="store_true", help="print JSON instead of text")
    parser.set_defaults(run=_info)


def _add_probe(commands: _Commands) -> None:
    parser = commands.add_parser(
        "probe",
        help="measure what this machine can do",
        description="Measure copies, gathers of random rows, matrix products and small calls, and "
        "keep the result for the cost model of gnnkern.explain and the benches. It takes "
        "about ten seconds, in which nothing else should run.",
        epilog=_PROBE_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--refresh", action="store_true", help="measure again")
    parser.add_argument("--device", default="cpu", metavar="NAME", help="default: cpu")
    parser.add_argument("--threads", type=_positive, metavar="N", help="default: torch's")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.set_defaults(run=_probe)


def _add_train(commands: _Commands) -> None:
    recipes = "\n".join(
        f"  {name:9} hidden {recipe.hidden}, heads {recipe.heads}, dropout {recipe.dropout}, "
        f"lr {recipe.lr}, weight decay {recipe.weight_decay}, {recipe.epochs} epochs\n"
        f"            ({recipe.source})"
        for name, recipe in RECIPES.items()
    )
    parser = commands.add_parser(
        "train",
        help="train a node classifier",
        description="Train a network of two layers to classify the nodes of a graph: full "
        "batch, Adam. Prints the test score at the epoch that was best on the validation nodes "
        "(ROC AUC where there are two classes, accuracy else), the time of an epoch and the "
        "memory added at the peak.",
        epilog=_TRAIN_EXAMPLES.format(recipes=recipes),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--data", default="digits", metavar="SOURCE", help=_DATA_HELP)
    parser.add_argument("--model", choices=list(RECIPES), default="gcn", help="default: gcn")
    training = parser.add_argument_group("training")
    training.add_argument("--epochs", type=int, metavar="N", help="number of epochs")
    seeds = training.add_mutually_exclusive_group()
    seeds.add_argument("--seed", type=int, default=0, metavar="N", help="default: 0")
    seeds.add_argument("--seeds", type=_ids, metavar="IDS", help='several: "0-9" or "1,2,5"')
    splits = training.add_mutually_exclusive_group()
    splits.add_argument(
        "--split", type=int, default=0, metavar="N", help="which of the data's splits; default: 0"
    )
    splits.add_argument("--splits", type=_ids, metavar="IDS", help="several, each with every seed")
    training.add_argument("--lr", type=float, metavar="X", help="learning rate")
    training.add_argument("--weight-decay", type=float, metavar="X")
    training.add_argument("--dropout", type=float, metavar="P", help="0 <= P < 1")
    training.add_argument(
        "--patience", type=int, metavar="N", help="stop after N epochs without a better validation"
    )
    network = parser.add_argument_group("network")
    network.add_argument("--hidden", type=int, metavar="N", help="hidden width, per head")
    network.add_argument("--heads", type=int, metavar="N", help="attention heads (gat)")
    kernels = parser.add_argument_group("kernels")
    path = kernels.add_mutually_exclusive_group()
    path.add_argument("--plain", action="store_true", help="plain torch ops instead of gnnkern's")
    path.add_argument(
        "--backend",
        choices=BACKENDS,
        help="run every op on this backend; default: the best that can",
    )
    kernels.add_argument("--device", default="cpu", metavar="NAME", help="default: cpu")
    kernels.add_argument("--threads", type=_positive, metavar="N", help="default: torch's")
    add_ranks(parser)
    output = parser.add_argument_group("output")
    output.add_argument("--json", type=Path, metavar="FILE", help='write results; "-" prints them')
    output.add_argument("--plot", type=Path, metavar="FILE", help="draw loss and score by epoch")
    output.add_argument("--quiet", action="store_true", help="no progress")
    parser.set_defaults(run=_train)


def _add_demo(commands: _Commands) -> None:
    parser = commands.add_parser(
        "demo",
        help="gnnkern beside plain torch on real graphs",
        description="Train a GCN and a GAT on the digits graph and on every file given, once by "
        "gnnkern and once by plain torch ops; print test score, time per epoch, peak memory and "
        "speed-up, and draw them.",
        epilog=_DEMO_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--data", nargs="*", default=[], metavar="SOURCE", help="graphs besides the digits"
    )
    parser.add_argument("--epochs", type=_positive, metavar="N", help="default: the recipes'")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="default: 0")
    parser.add_argument(
        "--seconds",
        type=float,
        default=210.0,
        metavar="X",
        help="time limit that all trainings share; default: 210",
    )
    parser.add_argument("--threads", type=_positive, metavar="N", help="default: torch's")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every number")
    parser.add_argument(
        "--plot", type=Path, default=Path("demo.png"), metavar="FILE", help="default: demo.png"
    )
    parser.set_defaults(run=_demo)


def _info(options: argparse.Namespace) -> None:
    facts = info.collect()
    if options.json:
        print(json.dumps(facts, indent=2))
    else:
        info.print_info(facts, _console())


def _probe(options: argparse.Namespace) -> None:
    with step_progress("probe") as progress:
        machine = probe(options.device, refresh=options.refresh, progress=progress)
    if options.json:
        print(json.dumps(machine.to_dict(), indent=2))
    else:
        print_machine(machine, _console())


def _train(options: argparse.Namespace) -> None:
    _check_writable(options.json, options.plot, options.log_file)
    if options.parts is not None:
        result = train_parts(options)
        if result is not None:
            _show_trainings([result], options)
            if options.json != Path("-"):
                print(in_words(result.settings["exchanges"]))
        return
    if options.log_file is not None:
        raise ValueError("train: --log-file is for a training with --parts")
    if options.checkpoint is not None or options.resume:
        raise ValueError("train: --checkpoint and --resume need --parts; one process is --parts 1")
    data = load(options.data)
    seeds = [options.seed] if options.seeds is None else options.seeds
    splits = [options.split] if options.splits is None else options.splits
    for split in splits:
        check_trainable(data, split)
    kwargs: dict[str, Any] = {
        "epochs": options.epochs,
        "lr": options.lr,
        "weight_decay": options.weight_decay,
        "hidden": options.hidden,
        "heads": options.heads,
        "dropout": options.dropout,
        "patience": options.patience,
        "plain": options.plain,
        "backend": options.backend,
        "device": options.device,
        "progress": not options.quiet,
    }
    warm_up(data, options.model, split=splits[0], **kwargs)
    # A copy of the data has no graph yet: every training pays for its own.
    results = [
        train_node_classifier(replace(data), options.model, seed=seed, split=split, **kwargs)
        for split in splits
        for seed in seeds
    ]
    _show_trainings(results, options)


def _show_trainings(results: list[TrainResult], options: argparse.Namespace) -> None:
    text = json.dumps([result.to_dict() for result in results], indent=2)
    if options.json == Path("-"):
        print(text)
    else:
        _print_results(results, _console())
        if options.json is not None:
            options.json.write_text(text + "\n")
            print(f"results: {options.json.resolve()}", file=sys.stderr)
    if options.plot is not None:
        plot_trainings(results, options.plot)
        print(f"plot: {options.plot.resolve()}", file=sys.stderr)


def _print_results(results: list[TrainResult], console: Console) -> None:
    first = results[0]
    title = f"{first.model.upper()} on {first.data}, {first.path}"
    table = Table(title=title, box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for heading in ("seed", "split", f"test {first.metric}", "validation", "best epoch"):
        table.add_column(heading, justify="right")
    for heading in ("ms / epoch", "IQR", "peak MiB"):
        table.add_column(heading, justify="right")
    for result in results:
        table.add_row(
            str(result.seed),
            str(result.split),
            f"{100 * result.test:.2f} %",
            f"{100 * result.val:.2f} %",
            f"{result.best_epoch} of {result.epochs}",
            f"{1e3 * result.epoch_median:.2f}",
            f"{1e3 * result.epoch_iqr:.2f}",
            f"{result.peak_memory / 2**20:.1f}",
        )
    console.print(table)
    if len(results) > 1:
        tests = [100 * result.test for result in results]
        console.print(
            f"mean test {first.metric} of {len(results)}: {statistics.mean(tests):.2f} % "
            f"± {statistics.stdev(tests):.2f} (standard deviation)",
            highlight=False,
        )


def _demo(options: argparse.Namespace) -> None:
    _check_writable(options.json, options.plot)
    console = _console()
    comparisons = run_demo(
        ["digits", *options.data],
        epochs=options.epochs,
        seed=options.seed,
        seconds=options.seconds,
    )
    print_table(comparisons, console)
    if options.json is not None:
        pairs = [
            {
                "gnnkern": comparison.fast.to_dict(),
                "plain": comparison.plain.to_dict(),
                "speedup": comparison.speedup,
            }
            for comparison in comparisons
        ]
        options.json.write_text(json.dumps(pairs, indent=2) + "\n")
        print(f"results: {options.json.resolve()}")
    try:
        plot_comparisons(comparisons, options.plot)
    except ImportError as error:
        print(f"no plot: {error}")
    else:
        print(f"plot: {options.plot.resolve()}")


def _console() -> Console:
    return Console() if sys.stdout.isatty() else Console(width=_FILE_WIDTH)


def _check_writable(*paths: Path | None) -> None:
    """Raise before the work rather than after it."""
    for path in paths:
        if path is not None and not path.resolve().parent.is_dir():
            raise ValueError(f"{path}: there is no folder {path.resolve().parent}")


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be >= 1, got {value}")
    return value


def _ids(text: str) -> list[int]:
    """Return the numbers in e.g. "0-9" or "1,2,5"."""
    ids: list[int] = []
    try:
        for part in text.split(","):
            first, dash, last = part.partition("-")
            ids += range(int(first), int(last) + 1) if dash else [int(first)]
    except ValueError:
        ids = []
    if not ids:
        raise argparse.ArgumentTypeError(f'must be like "0-9" or "1,2,5", got {text!r}')
    return ids
