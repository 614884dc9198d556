"""Populations beside the usual loop, which trains one network after the other with torch.nn and torch.optim.

    python benchmarks/populations.py [--rounds N] [--threads N] [--members N] [--device D]

Both train 784-1024-10 networks with ReLU, dropout, the squared error of probabilities, SGD with momentum and batches of
64. The images lie on the device; the loop has its data there too, and no loader. Both take turns within each round, and
the ratio of the time per network and step is the median over rounds. The share of data is the share of a population's
time that gathering and scaling batches takes.

The last line is one JSON object {name: number}.
"""

import json
import statistics
import sys
from pathlib import Path

import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

from _common import parser_of, synchronised

from creditflow.compute.device import use_device
from creditflow.populations.images import FlatImages
from creditflow.populations.population import Member
from creditflow.populations.rule import get_update_rule
from creditflow.populations.settings import PopulationSettings
from creditflow.populations.training import train_population

BATCH, STEPS = 64, 60
RULES = ("bp", "fa", "dfa", "pepita")


def images(device: torch.device) -> FlatImages:
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (BATCH * STEPS, 784), generator=generator, dtype=torch.uint8)
    return FlatImages(pixels.to(device), torch.randint(0, 10, (len(pixels),), generator=generator).to(device), 10)


def population(rule: str, n: int, data: FlatImages) -> float:
    """Returns the seconds per network and step of one epoch."""
    settings = PopulationSettings(
        epochs=1,
        batch_size=BATCH,
        hidden=[1024],
        dropout=0.1,
        optimizer={"momentum": 0.9},
        select="last",
        validation_images=0,
    )
    members = [Member(seed, 0.01) for seed in range(n)]
    start = synchronised(data.pixels.device)
    train_population(get_update_rule(rule), members, data, data, settings)
    return (synchronised(data.pixels.device) - start) / n / STEPS


def loop(n: int, data: FlatImages) -> float:
    """Returns the seconds per network and step of backpropagation, one network at a time."""
    device = data.pixels.device
    start = synchronised(device)
    for seed in range(n):
        torch.manual_seed(seed)
        net = nn.Sequential(nn.Linear(784, 1024), nn.ReLU(), nn.Dropout(0.1), nn.Linear(1024, 10), nn.Softmax(1)).to(
            device
        )
        optimizer = torch.optim.SGD(net.parameters(), lr=0.01, momentum=0.9)
        for chosen in torch.randperm(len(data), device=device).split(BATCH):
            targets = nn.functional.one_hot(data.labels[chosen], 10).float()
            loss = nn.functional.mse_loss(net(data.pixels[chosen].float() / 255), targets, reduction="sum") / len(
                chosen
            )
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return (synchronised(device) - start) / n / STEPS


def share_of_data(n: int, data: FlatImages) -> float:
    """Returns the share of a population's step that making its batches takes."""
    device = data.pixels.device
    chosen = torch.randint(0, len(data), (n, BATCH), device=device)
    start = synchronised(device)
    for _ in range(STEPS):
        data.batch(chosen, torch.float32)
    return (synchronised(device) - start) / n / STEPS / population("bp", n, data)


def main() -> None:
    args = parser_of(__doc__, members=10).parse_args()
    data = images(use_device(args.device, args.threads))
    kinds = {"loop": lambda: loop(args.members, data)}
    kinds |= {rule: lambda rule=rule: population(rule, args.members, data) for rule in RULES}  # type: ignore[misc]
    taken: dict[str, list[float]] = {kind: [] for kind in kinds}
    for measure in kinds.values():
        measure()  # warms up
    for index in range(args.rounds):
        for kind in taken if index % 2 else reversed(taken):
            taken[kind].append(kinds[kind]())
    print(
        f"{args.members} networks, {args.threads} threads, {args.device}:"
        " milliseconds per network and step, and ratio to the loop"
    )
    numbers = {}
    for kind, times in taken.items():
        ratios = sorted(seconds / reference for seconds, reference in zip(times, taken["loop"], strict=True))
        middle = statistics.median(ratios)
        span = f"{ratios[0]:.2f} to {ratios[-1]:.2f}"
        print(f"  {kind}: {1e3 * statistics.median(times):.2f} ms, {middle:.2f} ({span})")
        if kind != "loop":
            numbers[f"{kind}_over_loop"] = middle
    numbers["share_of_data"] = statistics.median(share_of_data(args.members, data) for _ in range(args.rounds))
    print(f"  making batches takes {100 * numbers['share_of_data']:.1f}% of a step of BP")
    print(json.dumps({name: round(value, 3) for name, value in numbers.items()}))


if __name__ == "__main__":
    main()
