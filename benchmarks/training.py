"""Time and peak memory of one training step under each feedback rule, beside backpropagation and BioTorch.

    python benchmarks/training.py [--models alexnet ...] [--rules frsf ...] [--rounds N] [--threads N]

A step is forward, backward, Adam with weight decay (fused) and setting the gradients to None, on random images. For each
rule the same network is trained by backpropagation, by our rule, and by BioTorch's where it has the rule. They take turns
within each round, the order reversed in every other one, so that what else the machine does meets all alike, and in one
process, because on a busy machine processes as a whole are slow or fast; a ratio is the median over rounds, its spread the
quartiles. Peak memory is that of a fresh process with one network that makes three steps.

BioTorch comes from PyPI into a folder of its own (--biotorch), beside the torch that runs here. Its DFA has no row: it
broadcasts the error of all classes over each map, which takes minutes for a step of 1,000 classes.

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

#: Model -> shape of its images, batch size, steps that are timed together. Those for grey images get one thread.
MODELS = {
    "lenet5": ((1, 28, 28), 32, 20),
    "small_cnn": ((1, 28, 28), 32, 10),
    "resnet18": ((3, 224, 224), 16, 1),
    "alexnet": ((3, 224, 224), 32, 1),
    "vgg16": ((3, 224, 224), 8, 1),
}


def network(name: str) -> nn.Module:
    shape = MODELS[name][0]
    if shape[0] == 1:
        return build_model(ModelSpec(name, shape, 10, (0.3,), (0.3,)))
    model: nn.Module = getattr(torchvision.models, name)(weights=None)
    return model


def ruled(name: str, rule: str, whose: str) -> nn.Module:
    """A network under a rule of ours, or of BioTorch's."""
    if whose == "ours":
        return apply_rule(network(name), rule, generator=torch.Generator().manual_seed(0))
    from biotorch.module.biomodule import BioModule

    with contextlib.redirect_stdout(io.StringIO()):  # it says what it converts
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
        """Makes a training step."""
        start = time.perf_counter()
        for _ in range(self._steps):
            F.cross_entropy(self._view(self._images), self._labels).backward()
            self._optimizer.step()
            self._optimizer.zero_grad(set_to_none=True)
        return (time.perf_counter() - start) / self._steps


def times(name: str, rule: str, with_biotorch: bool, args: argparse.Namespace) -> dict[str, list[float]]:
    """Seconds per step in each round of backpropagation, our rule and BioTorch's."""
    whose = {"bp": ("bp", "ours"), "ours": (rule, "ours")} | ({"biotorch": (rule, "biotorch")} if with_biotorch else {})
    runs = {key: Run(name, *what, args.threads) for key, what in whose.items()}
    for run in [*runs.values()] * 2:
        run.seconds()  # warm
    seconds: dict[str, list[float]] = {key: [] for key in runs}
    for index in range(args.rounds):
        for key in runs if index % 2 else reversed(runs):
            seconds[key].append(runs[key].seconds())
    return seconds


def memory(name: str, rule: str, whose: str, args: argparse.Namespace) -> float:
    """Peak memory in MiB of a process that trains."""
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
    # glibc then gives freed memory back at once: the peak is of what is in use, not of what lies about in between.
    done = subprocess.run(
        command, stdout=subprocess.PIPE, text=True, check=False, env=os.environ | {"MALLOC_MMAP_THRESHOLD_": "65536"}
    )
    if done.returncode:
        sys.exit(
            f"error: the process that trains {name} under {rule} ({whose}) ended with status {done.returncode}; see above"
        )
    return float(done.stdout)


def ratio(one: list[float], other: list[float]) -> tuple[float, str]:
    """Median over rounds, and the quartiles in words."""
    low, middle, high = statistics.quantiles([a / b for a, b in zip(one, other, strict=True)], n=4, method="inclusive")
    return middle, f"{middle:.2f} ({low:.2f} to {high:.2f})"


def compare(name: str, rule: str, with_biotorch: bool, bp_memory: float, args: argparse.Namespace) -> dict[str, float]:
    """Prints and returns the ratios of one rule on one network."""
    seconds, peak = times(name, rule, with_biotorch, args), memory(name, rule, "ours", args)
    over_bp, words = ratio(seconds["ours"], seconds["bp"])
    found = {f"{name}_{rule}_time_over_bp": over_bp, f"{name}_{rule}_memory_over_bp": peak / bp_memory}
    bp = 1000 * statistics.median(seconds["bp"])
    print(f"{name:9} {rule:4} {described(seconds['ours'], peak, bp_memory)}; {words} x BP ({bp:.1f} ms)")
    if with_biotorch:
        their_peak = memory(name, rule, "biotorch", args)
        over_ours, words = ratio(seconds["biotorch"], seconds["ours"])
        found |= {
            f"{name}_{rule}_biotorch_time_over_ours": over_ours,
            f"{name}_{rule}_biotorch_memory_over_ours": their_peak / peak,
        }
        print(f"{'BioTorch':>9} {rule:4} {described(seconds['biotorch'], their_peak, bp_memory)}; {words} x ours")
    sys.stdout.flush()
    return found


def described(seconds: list[float], peak: float, bp_memory: float) -> str:
    return f"{1000 * statistics.median(seconds):8.1f} ms, {peak:6.0f} MiB ({peak - bp_memory:+.0f} to BP)"


def install_biotorch(folder: Path) -> str | None:
    """Puts BioTorch into the folder unless it is there; returns why it could not, or None."""
    if (folder / "biotorch").is_dir():
        return None
    # Without its dependencies: all that its layers need is torch, and it has to be the one that runs here.
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
    done = subprocess.run([*command, "--target", str(folder), BIOTORCH], capture_output=True, text=True, check=False)
    if done.returncode:
        errors = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
        return errors[-1] if errors else f"pip ended with status {done.returncode}"
    (folder / ".gitignore").write_text("*\n")
    return None


def options() -> argparse.Namespace:
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
    found: dict[str, float] = {}
    for name in args.models:
        bp_memory = memory(name, "bp", "ours", args)
        for rule in args.rules:
            found |= compare(name, rule, rule in shared, bp_memory, args)
    if reason is not None:
        print("BioTorch has no rows: see the first line")
    print(json.dumps({key: round(value, 3) for key, value in found.items()}))


if __name__ == "__main__":
    main()
