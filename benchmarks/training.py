"""Time and peak memory of one training step under each feedback rule, compared with backpropagation and BioTorch.

    python benchmarks/training.py [--models alexnet ...] [--rules frsf ...] [--rounds N] [--threads N]

A step consists of forward pass, backward pass, a step of fused Adam with weight decay, and setting the gradients to
None; the images are random. For each rule the same network is trained by backpropagation, by our rule, and by the rule
of BioTorch if BioTorch has it. They take turns in each round, and every other round has the reverse order, so that
other work of the machine disturbs all of them alike. They share a process, because on a busy machine some processes as
a whole are slower than others. A ratio is the median over the rounds; its spread is given by the quartiles. Peak memory
is that of a new process with one network that makes three steps.

BioTorch is installed from PyPI into a folder of its own (--biotorch) and uses the torch that runs here. The DFA of
BioTorch has no row: it broadcasts the error of all classes over each map, so that a step with 1,000 classes takes
minutes.

The last line is one JSON object {name: ratio}. All models together take about half an hour on two cores.
"""

import argparse
import contextlib
import io
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

from _common import parser_of, peak_memory

from creditflow import apply_rule
from creditflow.compute.torchvision_import import torchvision
from creditflow.core import plugins
from creditflow.models.build import ModelSpec, build_model

BIOTORCH, FOLDER = "biotorch==0.0.16", Path(__file__).resolve().parents[1] / ".biotorch"
BIOTORCH_RULES = ("usf", "frsf", "brsf", "fa")

#: Model -> shape of the images, batch size, and number of steps that are timed together. Models for grey images get one
#: thread.
MODELS = {
    "lenet5": ((1, 28, 28), 32, 20),
    "small_cnn": ((1, 28, 28), 32, 10),
    "resnet18": ((3, 224, 224), 16, 1),
    "alexnet": ((3, 224, 224), 32, 1),
    "vgg16": ((3, 224, 224), 8, 1),
}


def network(name: str) -> nn.Module:
    """Returns a network of `MODELS` from a random start."""
    shape = MODELS[name][0]
    if shape[0] == 1:
        return build_model(ModelSpec(name, shape, 10, (0.3,), (0.3,)))
    model: nn.Module = getattr(torchvision.models, name)(weights=None)
    return model


def ruled(name: str, rule: str, whose: str) -> nn.Module:
    """Returns a network under our rule (`whose` is "ours") or that of BioTorch ("biotorch")."""
    if whose == "ours":
        return apply_rule(network(name), rule, generator=torch.Generator().manual_seed(0))
    from biotorch.module.biomodule import BioModule

    with contextlib.redirect_stdout(io.StringIO()):  # it prints what it converts
        module: nn.Module = BioModule(network(name), mode=rule)
    return module


class Run:
    """A network in training."""

    def __init__(self, name: str, rule: str, whose: str, threads: int) -> None:
        torch.manual_seed(0)
        shape, batch, self._steps = MODELS[name]
        torch.set_num_threads(1 if shape[0] == 1 else threads)
        self._view = ruled(name, rule, whose).train()
        parameters = [parameter for parameter in self._view.parameters() if parameter.requires_grad]
        self._optimizer = torch.optim.Adam(parameters, lr=1e-5, weight_decay=5e-4, fused=True)
        self._images, self._labels = torch.rand(batch, *shape), torch.randint(0, 10, (batch,))

    def seconds(self) -> float:
        """Makes training steps and returns the time of one, in seconds."""
        start = time.perf_counter()
        for _ in range(self._steps):
            F.cross_entropy(self._view(self._images), self._labels).backward()
            self._optimizer.step()
            self._optimizer.zero_grad(set_to_none=True)
        return (time.perf_counter() - start) / self._steps


def times(name: str, rule: str, with_biotorch: bool, args: argparse.Namespace) -> dict[str, list[float]]:
    """Returns the seconds per step, for each round, of backpropagation, our rule and the rule of BioTorch."""
    whose = {"bp": ("bp", "ours"), "ours": (rule, "ours")} | ({"biotorch": (rule, "biotorch")} if with_biotorch else {})
    runs = {key: Run(name, *what, args.threads) for key, what in whose.items()}
    for run in [*runs.values()] * 2:
        run.seconds()  # warm up
    seconds: dict[str, list[float]] = {key: [] for key in runs}
    for index in range(args.rounds):
        for key in runs if index % 2 else reversed(runs):
            seconds[key].append(runs[key].seconds())
    return seconds


def memory(name: str, rule: str, whose: str, args: argparse.Namespace) -> float:
    """Returns the peak memory of a process that trains, in MiB."""
    command = [
        sys.executable,
        __file__,
        "--peak-of",
        name,
        rule,
        whose,
        "--threads",
        str(args.threads),
        "--biotorch",
        str(args.biotorch),
    ]
    # With this variable glibc gives freed memory back at once, so that the peak counts only memory that is in use.
    done = subprocess.run(
        command,
        stdout=subprocess.PIPE,
        encoding="utf-8",
        check=False,
        env=os.environ | {"MALLOC_MMAP_THRESHOLD_": "65536"},
    )
    if done.returncode:
        sys.exit(
            f"error: the process that trains {name} under {rule} ({whose})"
            f" ended with status {done.returncode}; see above"
        )
    return float(done.stdout)


def ratio(times: list[float], base: list[float]) -> tuple[float, str]:
    """Returns the median over the rounds of times / base, and a text with the median and the quartiles."""
    ratios = [time / of_base for time, of_base in zip(times, base, strict=True)]
    low, middle, high = statistics.quantiles(ratios, n=4, method="inclusive")
    return middle, f"{middle:.2f} ({low:.2f} to {high:.2f})"


def compare(name: str, rule: str, with_biotorch: bool, bp_memory: float, args: argparse.Namespace) -> dict[str, float]:
    """Prints and returns the ratios of one rule on one network."""
    seconds, peak = times(name, rule, with_biotorch, args), memory(name, rule, "ours", args)
    over_bp, words = ratio(seconds["ours"], seconds["bp"])
    ratios = {f"{name}_{rule}_time_over_bp": over_bp, f"{name}_{rule}_memory_over_bp": peak / bp_memory}
    bp = 1000 * statistics.median(seconds["bp"])
    print(f"{name:9} {rule:4} {described(seconds['ours'], peak, bp_memory)}; {words} x BP ({bp:.1f} ms)")
    if with_biotorch:
        their_peak = memory(name, rule, "biotorch", args)
        over_ours, words = ratio(seconds["biotorch"], seconds["ours"])
        ratios |= {
            f"{name}_{rule}_biotorch_time_over_ours": over_ours,
            f"{name}_{rule}_biotorch_memory_over_ours": their_peak / peak,
        }
        print(f"{'BioTorch':>9} {rule:4} {described(seconds['biotorch'], their_peak, bp_memory)}; {words} x ours")
    sys.stdout.flush()
    return ratios


def described(seconds: list[float], peak: float, bp_memory: float) -> str:
    """Returns time and memory in words; memory is in MiB, and compared with that of backpropagation."""
    return f"{1000 * statistics.median(seconds):8.1f} ms, {peak:6.0f} MiB ({peak - bp_memory:+.0f} to BP)"


def install_biotorch(folder: Path) -> str | None:
    """Installs BioTorch into the folder unless it is there. Returns why this failed, or None."""
    if (folder / "biotorch").is_dir():
        return None
    # The dependencies are left out: its layers need torch only, and it has to be the torch that runs here.
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
    done = subprocess.run(
        [*command, "--target", str(folder), BIOTORCH], capture_output=True, encoding="utf-8", check=False
    )
    if done.returncode:
        errors = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
        return errors[-1] if errors else f"pip ended with status {done.returncode}"
    (folder / ".gitignore").write_text("*\n", encoding="utf-8")
    return None


def options() -> argparse.Namespace:
    """Returns the options of the command line."""
    rules = [name for name in plugins.names("rule") if name != "bp"]
    parser = parser_of(__doc__, rounds=9)
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--rules", nargs="+", choices=rules, default=rules)
    parser.add_argument("--no-biotorch", action="store_true", help="compare with backpropagation only")
    parser.add_argument(
        "--biotorch", type=Path, default=FOLDER, metavar="FOLDER", help=f"where {BIOTORCH} is, or is installed to"
    )
    parser.add_argument("--peak-of", nargs=3, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.rounds < 2:
        parser.error("--rounds must be at least 2")
    return args


def main() -> None:
    args = options()
    sys.path.append(str(args.biotorch))
    if args.peak_of is not None:
        run = Run(*args.peak_of, args.threads)
        for _ in range(3):
            run.seconds()
        print(peak_memory())
        return
    shared = [] if args.no_biotorch else [rule for rule in args.rules if rule in BIOTORCH_RULES]
    reason = install_biotorch(args.biotorch) if shared else None
    if reason is not None:
        print(f"BioTorch has no rows: {BIOTORCH} could not be installed into {args.biotorch} ({reason})", flush=True)
        shared = []
    ratios: dict[str, float] = {}
    for name in args.models:
        bp_memory = memory(name, "bp", "ours", args)
        for rule in args.rules:
            ratios |= compare(name, rule, rule in shared, bp_memory, args)
    if reason is not None:
        print("BioTorch has no rows: see the first line")
    print(json.dumps({key: round(value, 3) for key, value in ratios.items()}))


if __name__ == "__main__":
    main()
