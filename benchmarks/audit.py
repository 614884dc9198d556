"""Robust accuracy, time and memory of pyautoattack's standard evaluation and of `creditflow.audit`, side by side.

    python benchmarks/audit.py [--models lenet5 resnet18] [--modes honest fa] [--images 100] [--epsilons 0.05 0.1]

Both see the same networks, images and epsilons. A network is trained once on scikit-learn's digits; then each side
runs in a process of its own, one after the other, with an equal number of threads. pyautoattack takes the gradient
that the network gives, as its users do. The audit is at its strongest budget, with the exact gradient, and its time has
`check_gradient` in it. Time is that of the processor. Modes other than `honest` are BioTorch's; they run where BioTorch
is installed, as in the environment of `make bench-audit`, and are left out elsewhere.

With --page the table is written between its marks in a page of docs/. The last line is one JSON object
{name: number}.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from pyautoattack import AutoAttack
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

from _clients import BIOTORCH_MODES, biotorch
from _common import peak_memory
from _digits import Digits, accuracy, digits, train
from _page import put_tables

import creditflow as cf
from creditflow.compute.torchvision_import import torchvision
from creditflow.models.build import ModelSpec, build_model
from creditflow.stages.command_line import epsilon, positive

#: Model -> size and channels of its images, epochs of training.
MODELS = {"lenet5": (28, 1, 15), "resnet18": (32, 3, 6)}
NAMES = {"lenet5": "LeNet-5", "resnet18": "ResNet-18"}


def network(name: str, mode: str) -> nn.Module:
    """Returns a network from a random start, with autograd's own backward pass or with that of a mode of BioTorch."""
    size, channels, _ = MODELS[name]
    if name == "lenet5":
        plain = build_model(ModelSpec(name, (channels, size, size), 10, (0.0,), (1.0,)))
    else:
        plain = torchvision.models.resnet18(weights=None, num_classes=10)
    return plain if mode == "honest" else biotorch(mode, plain)


def data_of(name: str) -> Digits:
    size, channels, _ = MODELS[name]
    return digits(size, channels)


def theirs(model: nn.Module, images: Tensor, labels: Tensor, epsilons: list[float]) -> dict[str, Any]:
    """Runs the standard evaluation at each epsilon, for it knows one only."""
    robust = []
    for size in epsilons:
        attack = AutoAttack(model, norm="Linf", eps=size, version="standard", seed=0)
        adversarial, _ = attack.run_standard_evaluation(images, labels, batch_size=len(images))
        robust.append(accuracy(model, adversarial, labels))
    return {"robust": robust}


def ours(model: nn.Module, images: Tensor, labels: Tensor, epsilons: list[float]) -> dict[str, Any]:
    result = cf.audit(model, images, labels, epsilons=epsilons, gradients=("exact",), budget="strong", progress=False)
    (report,) = result.gradients.values()
    worst = result.accuracies[result.accuracies.attack == "worst case"].set_index("epsilon").value
    return {"robust": [float(worst[size]) for size in epsilons], "verdict": report.verdict}


def measured(args: argparse.Namespace, name: str, mode: str, weights: Path) -> dict[str, Any]:
    """Runs one side in this process and returns its robust accuracies, time and peak memory in MiB.

    The time is that of the processor, in seconds, so that what else the machine does counts little.
    """
    torch.set_num_threads(args.threads)
    model, data = network(name, mode).eval(), data_of(name)
    model.load_state_dict(torch.load(weights, weights_only=True))
    images, labels = data.test_images[: args.images], data.test_labels[: args.images]
    start = time.process_time()
    measured = {"ours": ours, "theirs": theirs}[args.side](model, images, labels, args.epsilons)
    measured |= {"seconds": round(time.process_time() - start, 1), "memory": round(peak_memory())}
    return measured | {"clean": accuracy(model, images, labels)}


def in_a_process(args: argparse.Namespace, side: str, name: str, mode: str, weights: Path) -> dict[str, Any]:
    command = [sys.executable, __file__, "--models", name, "--modes", mode, "--side", side, "--weights", str(weights)]
    command += ["--images", str(args.images), "--threads", str(args.threads), "--epsilons", *map(str, args.epsilons)]
    done = subprocess.run(command, stdout=subprocess.PIPE, encoding="utf-8", check=False)
    if done.returncode:
        sys.exit(f"error: {side} at {name} ({mode}) ended with status {done.returncode}; see above")
    measured: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return measured


def compared(args: argparse.Namespace, name: str, mode: str, folder: Path) -> dict[str, Any]:
    """Trains a network, lets both sides look at it, and returns what they found."""
    torch.manual_seed(0)
    model = train(network(name, mode), data_of(name), epochs=MODELS[name][2], seed=0)
    weights = folder / f"{name}-{mode}.pt"
    torch.save(model.state_dict(), weights)
    sides = {side: in_a_process(args, side, name, mode, weights) for side in ("theirs", "ours")}
    print(json.dumps({"model": name, "mode": mode} | sides), flush=True)
    return {"model": name, "mode": mode} | sides


def table(rows: list[dict[str, Any]], epsilons: list[float]) -> list[dict[str, str]]:
    """Returns a row for each network and epsilon; seconds and memory are those of all epsilons together."""
    lines = []
    for row in rows:
        for index, size in enumerate(epsilons):
            line = {
                "network": NAMES[row["model"]],
                "backward pass": "autograd's" if row["mode"] == "honest" else f"BioTorch's {row['mode']}",
                "epsilon": f"{size:g}",
                "clean": f"{row['ours']['clean']:.1%}",
            }
            for side, words in (("theirs", "pyautoattack"), ("ours", "creditflow")):
                measured = row[side]
                line[f"robust: {words}"] = f"{measured['robust'][index]:.1%}"
                line[f"seconds: {words}"] = f"{measured['seconds']:.0f}" if index == 0 else ""
                line[f"MiB: {words}"] = f"{measured['memory']}" if index == 0 else ""
            lines.append({key: line[key] for key in sorted(line, key=_column)})
    return lines


def _column(key: str) -> int:
    order = ("network", "backward", "epsilon", "clean", "robust", "seconds", "MiB")
    return next(index for index, start in enumerate(order) if key.startswith(start))


def numbers(rows: list[dict[str, Any]]) -> dict[str, float]:
    """Returns, for each network, how much higher ours is in points at most, and ratios of time and memory."""
    named = {}
    for row in rows:
        start = f"{row['model']}_{row['mode']}"
        above = [a - b for a, b in zip(row["ours"]["robust"], row["theirs"]["robust"], strict=True)]
        named[f"{start}_points_above_theirs"] = round(100 * max(above), 2)
        named[f"{start}_time_over_theirs"] = round(row["ours"]["seconds"] / row["theirs"]["seconds"], 3)
        named[f"{start}_memory_over_theirs"] = round(row["ours"]["memory"] / row["theirs"]["memory"], 3)
    return named


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--modes", nargs="+", choices=["honest", *BIOTORCH_MODES], default=["honest", "fa"])
    parser.add_argument("--images", type=positive, default=100, help="images that are attacked, at most 500")
    parser.add_argument("--epsilons", nargs="+", type=epsilon, default=[0.05, 0.1])
    parser.add_argument("--threads", type=positive, default=2)
    parser.add_argument("--page", type=Path, metavar="FILE.md")
    parser.add_argument("--side", choices=["ours", "theirs"], help=argparse.SUPPRESS)
    parser.add_argument("--weights", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> None:
    args = options()
    if args.side is not None:
        print(json.dumps(measured(args, args.models[0], args.modes[0], args.weights)))
        return
    if find_spec("biotorch") is None and args.modes != ["honest"]:
        print("BioTorch has no rows: it is not installed here (`make bench-audit` installs it)", flush=True)
        args.modes = ["honest"]
    torch.set_num_threads(args.threads)
    with tempfile.TemporaryDirectory() as folder:
        rows = [compared(args, name, mode, Path(folder)) for name in args.models for mode in args.modes]
    if args.page is not None:
        put_tables(args.page, {"audit": table(rows, args.epsilons)})
    print(json.dumps(numbers(rows)))


if __name__ == "__main__":
    main()
