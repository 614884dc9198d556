"""The parts of an audit: budgets, batch sizes, memory that runs out, and the progress bar."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import creditflow as cf
from creditflow.attacks.kinds import REQUIRED, kinds
from creditflow.core.errors import UserError
from creditflow.core.settings import plain
from creditflow.instrument.batching import fitting_batch, with_less_memory
from creditflow.instrument.budgets import BUDGETS, jobs
from known_models import attacked, honest


@pytest.mark.parametrize("n_classes", [2, 3, 4, 10])
@pytest.mark.parametrize("budget", BUDGETS)
def test_each_model_is_attacked_by_all_kinds_that_it_can_be_attacked_by(budget: str, n_classes: int) -> None:
    both, tier = ("exact", "own"), BUDGETS[budget]
    made = {
        verdict: {(job.attack, job.gradient): plain(job.settings) for job in jobs(tier, verdict, both, n_classes, True)}
        for verdict in ("honest", "surrogate", "no useful gradient")
    }
    assert set(made["honest"]) == {("pgd", "exact"), ("cascade", "exact")}  # once, not twice
    assert set(made["surrogate"]) >= {("pgd", "own"), ("pgd", "exact"), ("cascade", "exact")}
    assert all(gradient != "exact" for _, gradient in made["no useful gradient"])
    for verdict in ("honest", "surrogate"):
        assert kinds("cascade", made[verdict]["cascade", "exact"]) == set(REQUIRED)
    assert kinds("cascade", made["no useful gradient"]["cascade", "none"]) == {"gradient_free", "transfer"}
    alone = jobs(tier, "honest", both, n_classes, False)[-1]
    assert kinds("cascade", plain(alone.settings)) == {"scale_free", "gradient_free"}


def test_the_strong_budget_is_that_of_the_attacks_authors() -> None:
    cascade = plain(jobs(BUDGETS["strong"], "honest", ("exact",), 10, False)[-1].settings)
    assert cascade["apgd_scaled"]["steps"] == 100 and cascade["square"]["queries"] == 5000
    assert cascade["apgd_targeted"] == {"steps": 100, "restarts": 1, "targets": 9}


def test_larger_images_come_in_smaller_batches() -> None:
    network = nn.Sequential(nn.Conv2d(3, 64, 3, padding=1), nn.ReLU(), nn.Conv2d(64, 64, 3, padding=1)).eval()
    sizes = [fitting_batch(network, torch.zeros(1, 3, side, side), torch.device("cpu")) for side in (8, 64, 224)]
    assert sizes == sorted(sizes, reverse=True) and sizes[0] > sizes[-1] >= 8
    assert all(size & (size - 1) == 0 for size in sizes)


def test_batches_are_halved_until_memory_suffices(capsys: pytest.CaptureFixture[str]) -> None:
    def work(size: int) -> int:
        if size > 5:
            raise RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return size * 10

    assert with_less_memory(work, 32) == (40, 4)
    assert capsys.readouterr().err.count("memory ran out") == 3

    def never(size: int) -> int:
        raise MemoryError

    with pytest.raises(UserError, match="memory does not suffice for one image"):
        with_less_memory(never, 2)

    def broken(size: int) -> int:
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    with pytest.raises(RuntimeError, match="mat1"):
        with_less_memory(broken, 2)


class Noisy(nn.Module):
    """The digits' network with random logits."""

    def forward(self, x: Tensor) -> Tensor:
        return honest()(x) + 0.5 * torch.randn(len(x), 10)


def test_random_outputs_are_told_and_progress_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    images, labels = attacked(40)
    options: dict[str, Any] = {"epsilons": [0.1], "budget": "quick"}
    first = cf.audit({"noisy": Noisy().eval(), "reference": honest()}, images, labels, **options)
    shown = capsys.readouterr().err
    assert "noisy: cascade exact" in shown and "passed" in shown and "left" in shown
    noisy = first.table[first.table.model == "noisy"].iloc[0]
    assert noisy.net_effect == "unresolved" and "the outputs are random" in noisy.reason
    again = cf.audit({"noisy": Noisy().eval(), "reference": honest()}, images, labels, progress=False, **options)
    assert again.table.equals(first.table) and capsys.readouterr().err == ""
