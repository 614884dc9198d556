"""Training on a GPU: twice the same bits, also after an interruption, and jobs that share the GPUs."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from creditflow.compute import gpus
from creditflow.compute.checkpoints import Resume
from creditflow.compute.randomness import Streams
from creditflow.compute.torchvision_import import torchvision
from creditflow.core import plugins
from creditflow.feedback.apply import apply_rule
from creditflow.training.loop import train
from creditflow.training.settings import TrainingSettings
from creditflow.training.task import TrainingData
from on_gpu import assert_same_bits, small_model, subset

SOURCE = Path(__file__).resolve().parents[2] / "src"
every_rule = pytest.mark.parametrize("rule", plugins.names("rule"))
SETTINGS = TrainingSettings(epochs=3, batch_size=16, learning_rate=0.003, weight_decay=5e-4, flip=True)

JOB = """
import sys
sys.path.insert(0, {source!r})
import torch
from creditflow.compute.device import use_device
device = use_device("auto", 1)
print(device.type, torch.cuda.device_count(), float(torch.ones(3, device=device).sum()))
"""


class InterruptedRunError(Exception):
    pass


def run(rule: str, device: torch.device, resume: Resume | None = None, stop: int = 0) -> dict[str, Tensor]:
    """Returns weights and feedback state at the end, and losses."""

    def after(row: dict[str, float]) -> None:
        if row["epoch"] == stop:
            raise InterruptedRunError

    data, model = subset().to(device), small_model().to(device)
    state, history = train(
        model, rule, TrainingData(data, data), SETTINGS, Streams("test", 1), resume=resume, on_epoch=after
    )
    losses = torch.tensor([row["loss"] for row in history], dtype=torch.float64)
    return {**model.state_dict(), **{f"feedback {name}": value for name, value in state.items()}, "losses": losses}


@every_rule
def test_two_runs_have_the_same_bits(rule: str, device: torch.device) -> None:
    assert_same_bits(run(rule, device), run(rule, device))


@every_rule
def test_an_interrupted_run_ends_bit_for_bit_like_an_undisturbed_one(
    rule: str, device: torch.device, tmp_path: Path
) -> None:
    resume = Resume(tmp_path / "run.checkpoint", "job")
    with pytest.raises(InterruptedRunError):
        run(rule, device, resume, stop=1)
    assert_same_bits(run(rule, device, resume), run(rule, device))


@pytest.mark.parametrize(("name", "side"), [("resnet18", 32), ("alexnet", 224)])
def test_steps_of_a_large_network_have_the_same_bits_twice(name: str, side: int, device: torch.device) -> None:
    """Pooling, convolutions and dropout of torchvision's networks.

    At smaller images AlexNet's adaptive pooling repeats pixels. Their gradients are then added in an order that CUDA
    does not fix, and PyTorch has no other kernel for it.
    """

    def steps() -> dict[str, Tensor]:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            model = getattr(torchvision.models, name)(num_classes=10).to(device)
            images = torch.rand(4, 3, side, side).to(device)
            view = apply_rule(model, "frsf", generator=torch.Generator().manual_seed(0)).train()
            optimizer = torch.optim.Adam(view.parameters(), 1e-4, fused=True)
            for _ in range(2):
                optimizer.zero_grad()
                nn.functional.cross_entropy(view(images), torch.arange(4, device=device)).backward()
                optimizer.step()
        return {key: value.detach().clone() for key, value in model.state_dict().items()}

    assert_same_bits(steps(), steps())


def test_a_job_sees_the_gpu_of_its_slot_and_no_other(device: torch.device, tmp_path: Path) -> None:
    if device.type == "cpu":
        pytest.skip("a slot has a GPU")
    kept = {key: value for key, value in os.environ.items() if key not in (gpus.SLOTS, gpus.VISIBLE)}
    command = [sys.executable, "-c", JOB.format(source=str(SOURCE))]
    done = subprocess.run(
        command, cwd=tmp_path, env=kept | {gpus.SLOTS: "0,0"}, capture_output=True, encoding="utf-8", check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["cuda", "1", "3.0"]
