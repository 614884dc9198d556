"""Seconds per Fashion-MNIST epoch of the target-propagation family, beside backpropagation with torch.nn in the same run.

    python benchmarks/target_propagation.py [--rounds N] [--threads N] [--members N] [--device D]

784-256x5-10, tanh, batches of 128, float32, the published hyper-parameters of Table 1; an epoch is 55,000 images, with the extra epoch of
feedback where a method has one. A tenth of an epoch is timed, and taken tenfold. `AUTHORS` are the times of the authors' code (float64,
loaders of single images), measured once on two cores of an AMD EPYC with two threads; it is not part of this repository.
Time per member is a population's over its size; its ratio is to a population of one.

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
from creditflow.workflow.experiments import Experiment, load_experiments

#: Seconds per epoch.
AUTHORS = {"bp": 2.6, "dfa_targets": 4.9, "dtp": 8.2, "ddtp_linear": 12.7, "dtpdrl": 23.1}
PART = 10
DATASET, VARIANT = "fashion_mnist", "mlp_256x5"


def images(device: torch.device) -> FlatImages:
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (55_000 // PART, 784), generator=generator, dtype=torch.uint8)
    return FlatImages(pixels.to(device), torch.randint(0, 10, (len(pixels),), generator=generator).to(device), 10)


def epoch(experiment: Experiment, rule: str, n: int, data: FlatImages) -> float:
    """Seconds per member of an epoch."""
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
    """The same of a network of torch.nn, with autograd and torch.optim, whose images lie on the device."""
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


def main() -> None:
    args = parser_of(__doc__, members=5).parse_args()
    data = images(use_device(args.device, args.threads))
    matmul.use_faster_matmul()  # as the stage does; torch.nn has them, too
    root = Path(__file__).resolve().parents[1] / "config"
    experiment = load_experiments(root / "experiments", root / "schema.yaml")["target_propagation_fashion"]
    rules = experiment.keys["rules"]
    taken: dict[str, dict[int, list[float]]] = {rule: {1: [], args.members: []} for rule in rules}
    reference: list[float] = []
    torch_epoch(data)  # warm
    for _ in range(args.rounds):
        reference.append(torch_epoch(data))
        for rule in rules:
            for n in taken[rule]:
                taken[rule][n].append(epoch(experiment, rule, n, data))
    found: dict[str, float] = {}
    print(f"{args.threads} threads, {args.device}, medians of {args.rounds} rounds: seconds per epoch of one network")
    print(f"  backpropagation with torch.nn: {statistics.median(reference):.2f} s")
    for rule, of_sizes in taken.items():
        alone, together = (statistics.median(of_sizes[n]) for n in (1, args.members))
        ratios = sorted(b / a for a, b in zip(of_sizes[1], of_sizes[args.members], strict=True))
        text = f"  {rule}: {alone:.2f} s ({min(of_sizes[1]):.2f} to {max(of_sizes[1]):.2f})"
        found[f"{rule}_s"] = alone
        if rule in AUTHORS:
            found[f"{rule}_over_authors"] = alone / AUTHORS[rule]
            text += f", {alone / AUTHORS[rule]:.2f} of the authors' {AUTHORS[rule]} s"
        middle = statistics.median(ratios)
        found[f"{rule}_of_{args.members}_over_1"] = middle
        print(
            f"{text}; per member of {args.members}: {together:.2f} s, {middle:.2f} of one ({ratios[0]:.2f} to {ratios[-1]:.2f})"
        )
    print(json.dumps({name: round(value, 3) for name, value in found.items()}))


if __name__ == "__main__":
    main()
