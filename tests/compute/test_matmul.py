"""Matrix products by oneDNN in the place of MKL: the same numbers, wherever PyTorch multiplies."""

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor
from torch.func import vmap

from creditflow.compute import matmul
from creditflow.core.settings import parse
from creditflow.populations.images import FlatImages
from creditflow.populations.population import Member
from creditflow.populations.rule import get_update_rule
from creditflow.populations.settings import PopulationSettings
from creditflow.populations.training import train_population

needs_onednn = pytest.mark.skipif(not hasattr(torch.ops.mkldnn, "_linear_pointwise"), reason="PyTorch without oneDNN")


def take_back() -> None:
    """Undoes `use_faster_matmul`."""
    if matmul._library is not None:
        matmul._library._destroy()
        matmul._library = None


@pytest.fixture
def onednn(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """oneDNN is in use, whatever the processor, and for small matrices, too."""
    monkeypatch.setattr(matmul, "_is_faster", lambda: True)
    monkeypatch.setattr(matmul, "SMALLEST", 1)
    assert matmul.use_faster_matmul()
    yield
    take_back()


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@needs_onednn
def test_products_are_those_of_float64_however_matrices_lie_in_memory(onednn: None) -> None:
    for m, k, n in ((128, 256, 256), (5, 3, 7), (1, 1, 1), (0, 3, 4), (4, 0, 3), (300, 10, 33)):
        for a in (draw(m, k), draw(k, m).T, draw(m, 2 * k)[:, ::2], draw(m, 1).expand(m, k)):
            for b in (draw(k, n, seed=1), draw(n, k, seed=1).T):
                exact = a.double() @ b.double()
                torch.testing.assert_close((a @ b).double(), exact, rtol=1e-5, atol=1e-4)
                pair = torch.bmm(torch.stack([a, -a]), b.expand(2, k, n)).double()
                torch.testing.assert_close(pair, torch.stack([exact, -exact]), rtol=1e-5, atol=1e-4)
                torch.testing.assert_close(a.double() @ b.double(), exact, rtol=0, atol=0)


@needs_onednn
def test_gradients_and_vmapped_products_are_the_same(onednn: None) -> None:
    a, b = draw(6, 8).requires_grad_(), draw(8, 5, seed=1).requires_grad_()
    (a @ b).square().sum().backward()
    error = 2 * (a.detach().double() @ b.detach().double())
    torch.testing.assert_close(a.grad, (error @ b.detach().double().T).float())
    torch.testing.assert_close(b.grad, (a.detach().double().T @ error).float())
    many = vmap(lambda x: (x @ b.detach()).T @ x)(draw(3, 6, 8))
    for product, x in zip(many, draw(3, 6, 8), strict=True):
        torch.testing.assert_close(product, (x @ b.detach()).T @ x)


@needs_onednn
def test_training_goes_the_same_way_and_the_choice_can_be_taken_back(monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = torch.randint(0, 256, (64, 16), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    data = FlatImages(pixels, torch.arange(64) % 3, 3)
    settings = parse(
        PopulationSettings, {"hidden": [12], "epochs": 2, "batch_size": 16, "validation_images": 8}, "test"
    )

    def losses() -> list[float]:
        trained = train_population(get_update_rule("bp"), [Member(0, 0.1), Member(1, 0.1)], data, data, settings)
        return [float(row["loss"]) for history in trained.history for row in history]

    by_mkl = losses()
    monkeypatch.setattr(matmul, "_is_faster", lambda: True)
    monkeypatch.setattr(matmul, "SMALLEST", 1)
    assert matmul.use_faster_matmul() and matmul.use_faster_matmul()
    assert losses() == pytest.approx(by_mkl, rel=1e-4)
    take_back()
    take_back()
    assert losses() == by_mkl


def test_an_intel_processor_keeps_mkl(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.mkl, "is_available", lambda: True)
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX512")
    for vendor in ("GenuineIntel", "AuthenticAMD"):
        monkeypatch.setattr(matmul.Path, "read_text", lambda self, encoding, vendor=vendor: f"vendor_id : {vendor}")
        matmul.mkl_is_held_back.cache_clear()
        assert matmul.mkl_is_held_back() == (vendor != "GenuineIntel")
        assert vendor != "GenuineIntel" or not matmul.use_faster_matmul()
    matmul.mkl_is_held_back.cache_clear()
