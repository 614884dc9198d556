"""Time of one training step under each feedback rule, as a ratio to backpropagation, side by side in one run.

    python benchmarks/feedback_step.py

Rules alternate within each round, so that what else the machine does meets all alike; the ratio is the median over
rounds. The last line is one JSON object {name: ratio}.
"""

import json
import statistics
import sys
import time
from pathlib import Path

import torch
from torch.nn import functional as F

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

from creditflow import apply_rule, plugins
from creditflow.models import ModelSpec, build_model

ROUNDS, STEPS, BATCH = 15, 10, 32


def seconds(view: torch.nn.Module, optimizer: torch.optim.Optimizer, images: torch.Tensor, labels: torch.Tensor) -> float:
    """Returns the time of `STEPS` training steps."""
    start = time.perf_counter()
    for _ in range(STEPS):
        optimizer.zero_grad(set_to_none=True)
        F.cross_entropy(view(images), labels).backward()
        optimizer.step()
    return time.perf_counter() - start


def ratios(backbone: str) -> dict[str, float]:
    """Returns for each rule the median ratio of its time to BP's on the same network and batch."""
    torch.manual_seed(0)
    images, labels = torch.rand(BATCH, 1, 28, 28), torch.randint(0, 10, (BATCH,))
    runs = {}
    for rule in ["bp", *(name for name in plugins.names("rule") if name != "bp")]:
        model = build_model(ModelSpec(backbone, (1, 28, 28), 10, (0.3,), (0.3,)))
        view = apply_rule(model, rule, generator=torch.Generator().manual_seed(0))
        runs[rule] = (view, torch.optim.Adam(model.parameters(), fused=True))
        seconds(*runs[rule], images, labels)  # warm up
    times: dict[str, list[float]] = {rule: [] for rule in runs}
    for _ in range(ROUNDS):
        for rule, run in runs.items():
            times[rule].append(seconds(*run, images, labels))
    found = {}
    for rule, measured in times.items():
        each = [mine / bp for mine, bp in zip(measured, times["bp"], strict=True)]
        found[f"{backbone}_{rule}_over_bp"] = round(statistics.median(each), 3)
        milliseconds = 1000 * statistics.median(measured) / STEPS
        spread = f"(min {min(each):.2f}, max {max(each):.2f})"
        print(f"{backbone:10} {rule:5} {milliseconds:7.2f} ms/step, {statistics.median(each):.2f} x BP {spread}")
    return found


if __name__ == "__main__":
    torch.set_num_threads(1)
    print(json.dumps(ratios("lenet5") | ratios("small_cnn")))
