"""Seconds per Fashion-MNIST epoch of the target-propagation family, beside backpropagation with torch.nn.

    python benchmarks/target_propagation.py [--rounds N] [--threads N] [--members N] [--device D]

The networks are 784-256x5-10 with tanh, in float32, with batches of 128 and the published hyper-parameters of Table 1.
An epoch is 55,000 images, and one more epoch of feedback where a method has one. A tenth of an epoch is timed, and the
time is multiplied by ten. `AUTHORS` are the times of the authors' code (float64, loaders of single images), which is
not part of this repository. They were measured once, on two cores of an AMD EPYC with two threads. The time per member
is the time of a population divided by its size; its ratio is to a population of one.

The last line is one JSON object {name: number}.
"""

import json
import statistics
import sys
from itertools import pairwise
from pathlib import Path

import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

from _common import parser_of, synchronised

from creditflow.compute import matmul
from creditflow.compute.device import use_device
from creditflow.core.settings import parse
from creditflow.populations.images import FlatImages
from creditflow.populations.population import Member
from creditflow.populations.rule import get_update_rule
from creditflow.populations.settings import PopulationSettings
from creditflow.populations.training import train_population
from creditflow.workflow.experiments import Experiment
from creditflow.workflow.loading import load_experiments

#: Seconds per epoch.
AUTHORS = {"bp": 2.6, "dfa_targets": 4.9, "dtp": 8.2, "ddtp_linear": 12.7, "dtpdrl": 23.1}
PART = 10
DATASET, VARIANT = "fashion_mnist", "mlp_256x5"


def images(device: torch.device) -> FlatImages:
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (55_000 // PART, 784), generator=generator, dtype=torch.uint8)
    return FlatImages(pixels.to(device), torch.randint(0, 10, (len(pixels),), generator=generator).to(device), 10)


def epoch(experiment: Experiment, rule: str, n: int, data: FlatImages) -> float:
    """Returns the seconds per member of one epoch."""
    values = experiment.population(DATASET, VARIANT, rule)
    values |= {
        "epochs": 1,
        "validation_images": 0,
        "select": "last",
        "angle_images": 0,
        "layer_angles": False,
        "feedback_epochs": 0,
    }
    rates = experiment.keys["population"]["variants"][VARIANT]["learning_rates"][DATASET][rule]
    members = [Member(seed, rates[0]) for seed in range(n)]
    start = synchronised(data.pixels.device)
    train_population(
        get_update_rule(rule), members, data, data.part(torch.arange(1)), parse(PopulationSettings, values, rule)
    )
    return (synchronised(data.pixels.device) - start) * PART / n


def torch_epoch(data: FlatImages) -> float:
    """Returns the same for a network of torch.nn, with autograd and torch.optim; its images lie on the device."""
    device = data.pixels.device
    widths = [784, *[256] * 5]
    layers = [layer for n_in, n_out in pairwise(widths) for layer in (nn.Linear(n_in, n_out), nn.Tanh())]
    net = nn.Sequential(*layers, nn.Linear(256, 10)).to(device)
    optimizer = torch.optim.Adam(net.parameters(), lr=3e-4, fused=True)
    start = synchronised(device)
    for chosen in torch.randperm(len(data), device=device).split(128):
        loss = nn.functional.cross_entropy(net(data.pixels[chosen].float() / 255), data.labels[chosen])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return (synchronised(device) - start) * PART


def report(rule: str, times: dict[int, list[float]], n_members: int) -> dict[str, float]:
    """Prints a rule's times {members: seconds of each round} and returns its numbers by name."""
    alone, together = (statistics.median(times[n]) for n in (1, n_members))
    ratios = sorted(after / before for before, after in zip(times[1], times[n_members], strict=True))
    middle = statistics.median(ratios)
    numbers = {f"{rule}_s": alone, f"{rule}_of_{n_members}_over_1": middle}
    text = f"  {rule}: {alone:.2f} s ({min(times[1]):.2f} to {max(times[1]):.2f})"
    if rule in AUTHORS:
        numbers[f"{rule}_over_authors"] = alone / AUTHORS[rule]
        text += f", {alone / AUTHORS[rule]:.2f} of the authors' {AUTHORS[rule]} s"
    print(
        f"{text}; per member of {n_members}: {together:.2f} s,"
        f" {middle:.2f} of one ({ratios[0]:.2f} to {ratios[-1]:.2f})"
    )
    return numbers


def main() -> None:
    args = parser_of(__doc__, members=5).parse_args()
    data = images(use_device(args.device, args.threads))
    matmul.use_faster_matmul()  # as the stage does; torch.nn gets them, too
    root = Path(__file__).resolve().parents[1] / "config"
    experiment = load_experiments(root / "experiments")["target_propagation_fashion"]
    rules = experiment.keys["rules"]
    taken: dict[str, dict[int, list[float]]] = {rule: {1: [], args.members: []} for rule in rules}
    reference: list[float] = []
    torch_epoch(data)  # warms up
    for _ in range(args.rounds):
        reference.append(torch_epoch(data))
        for rule in rules:
            for n in taken[rule]:
                taken[rule][n].append(epoch(experiment, rule, n, data))
    print(f"{args.threads} threads, {args.device}, medians of {args.rounds} rounds: seconds per epoch of one network")
    print(f"  backpropagation with torch.nn: {statistics.median(reference):.2f} s")
    numbers: dict[str, float] = {}
    for rule, times in taken.items():
        numbers |= report(rule, times, args.members)
    print(json.dumps({name: round(value, 3) for name, value in numbers.items()}))


if __name__ == "__main__":
    main()
