"""Time and memory of FGSM and PGD, as ratios to plain foolbox; time without channels last, and through feedback.

    python benchmarks/attacks.py [--rounds N] [--threads N]

Both attack the same images of the same network and both say for each image whether it was fooled. They alternate
within each round, so that what else the machine does meets both alike; a ratio is the median over rounds. Memory is the
peak of a process of its own. The last line is one JSON object {name: ratio}.
"""

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import foolbox
import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

from _common import parser_of, peak_memory

from creditflow import apply_rule
from creditflow.attacks.judge import get_attack, run_attack
from creditflow.core import plugins
from creditflow.data.inputs import to_unit_interval
from creditflow.data.prepared import Subset
from creditflow.models.build import ModelSpec, build_model
from creditflow.stages.measuring import placed

IMAGES, EPSILONS = 250, [0.001, 0.005, 0.01, 0.05, 0.1, 0.5]
REFERENCE = {
    "fgsm": lambda: foolbox.attacks.LinfFastGradientAttack(random_start=False),
    "pgd": lambda: foolbox.attacks.LinfPGD(rel_stepsize=1 / 3, steps=5, random_start=False),
}


def task() -> tuple[nn.Module, Subset]:
    """A LeNet-5 and random images: what they show does not matter for the time."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (IMAGES, 1, 28, 28), generator=generator, dtype=torch.uint8)
    data = Subset(images, torch.randint(0, 10, (IMAGES,), generator=generator), tuple("0123456789"), (0.3,), (0.3,))
    return build_model(ModelSpec("lenet5", (1, 28, 28), 10, (0.3,), (0.3,))).eval(), data


def ours(name: str, model: nn.Module, data: Subset) -> None:
    attack, settings = get_attack(name), plugins.settings_class("attack", name)()
    run_attack(attack, settings, model, data, torch.arange(IMAGES), EPSILONS, batch_size=IMAGES, seed=0)


def theirs(name: str, model: nn.Module, data: Subset) -> None:
    """foolbox's own loop over epsilons, and its clean accuracy, which ours measures too."""
    fmodel, images = foolbox.PyTorchModel(model, bounds=(0, 1), device="cpu"), to_unit_interval(data.images)
    foolbox.accuracy(fmodel, images, data.labels)
    REFERENCE[name]()(fmodel, images, data.labels, epsilons=EPSILONS)


RUNS = {"ours": ours, "theirs": theirs}


def seconds(run: Callable[[str, nn.Module, Subset], None], name: str, model: nn.Module, data: Subset) -> float:
    start = time.perf_counter()
    run(name, model, data)
    return time.perf_counter() - start


def peak_of(whose: str, name: str) -> float:
    """Returns the peak memory in MiB of a process that runs one attack three times."""
    done = subprocess.run(
        [sys.executable, __file__, "--threads", str(torch.get_num_threads()), "--memory-of", f"{whose} {name}"],
        check=True,
        capture_output=True,
        encoding="utf-8",
    )
    return float(done.stdout)


def ratios(name: str, rounds: int) -> dict[str, float]:
    model, data = task()
    for run in (ours, theirs):
        run(name, model, data)  # warm up
    each = [seconds(theirs, name, model, data) / seconds(ours, name, model, data) for _ in range(rounds)]
    memory = peak_of("ours", name) / peak_of("theirs", name)
    spread = f"(min {min(each):.2f}, max {max(each):.2f})"
    print(f"{name}: {statistics.median(each):.2f} x as fast as foolbox {spread}, {memory:.2f} x its peak memory")
    return {
        f"{name}_foolbox_time_over_ours": round(statistics.median(each), 3),
        f"{name}_memory_over_foolbox": round(memory, 3),
    }


def layout_ratio(name: str, rounds: int) -> dict[str, float]:
    """Compares a model as it is built with one in the layout that `creditflow.stages.measuring` gives it on a CPU."""
    built, data = task()
    last = placed(task()[0], torch.device("cpu"))
    for model in (built, last):
        ours(name, model, data)  # warm up
    each = [seconds(ours, name, built, data) / seconds(ours, name, last, data) for _ in range(rounds)]
    print(
        f"{name}: {statistics.median(each):.2f} x as fast with channels last (min {min(each):.2f}, max {max(each):.2f})"
    )
    return {f"{name}_contiguous_over_channels_last": round(statistics.median(each), 3)}


def feedback_ratio(name: str, rule: str, rounds: int) -> dict[str, float]:
    """Compares the attack through a rule's feedback weights with the attack by the exact gradient, channels last."""
    exact, data = task()
    exact = placed(exact, torch.device("cpu"))
    through = placed(apply_rule(exact, rule, generator=torch.Generator().manual_seed(0)), torch.device("cpu"))
    for model in (exact, through):
        ours(name, model, data)  # warm up
    each = [seconds(ours, name, through, data) / seconds(ours, name, exact, data) for _ in range(rounds)]
    print(f"{name} through {rule}: {statistics.median(each):.2f} of exact (min {min(each):.2f}, max {max(each):.2f})")
    return {f"{name}_{rule}_over_exact": round(statistics.median(each), 3)}


def main() -> None:
    parser = parser_of(__doc__, rounds=9)
    parser.set_defaults(threads=1)
    # For the process of its own that peak_of starts.
    parser.add_argument(
        "--memory-of",
        choices=[f"{whose} {name}" for whose in RUNS for name in REFERENCE],
        help="only print the peak memory in MiB",
    )
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    if args.memory_of:
        whose, name = args.memory_of.split()
        for _ in range(3):
            RUNS[whose](name, *task())
        print(peak_memory())
        return
    numbers = ratios("fgsm", args.rounds) | ratios("pgd", args.rounds)
    numbers |= layout_ratio("pgd", args.rounds) | feedback_ratio("pgd", "frsf", args.rounds)
    print(json.dumps(numbers))


if __name__ == "__main__":
    main()
