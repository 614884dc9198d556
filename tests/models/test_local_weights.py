"""Weights from files of the user's as the start of fine-tuning: of any network that a factory makes, and of our own."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from creditflow import load_model, save_model
from creditflow.compute.torchvision_import import torchvision
from creditflow.core import files
from creditflow.core.errors import UserError
from creditflow.models.build import ImageClassifier, ModelSpec, build_model, replace_head
from creditflow.models.factories import make_model
from creditflow.models.local_weights import import_network, import_own, last_linear
from helpers import small_model, stage

FACTORY = """
import torch
from torch import nn


class Net(nn.Module):
    def __init__(self, bias=True):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 6))
        self.register_buffer("shift", torch.tensor(0.25), persistent=False)
        self.last = nn.Linear(6, 7, bias=bias)

    def forward(self, x):
        return self.last(torch.tanh(self.body(x - self.shift)))


def without_bias():
    return Net(bias=False)


class Scaled(Net):
    def forward(self, x):
        return 2 * super().forward(x)


class Attentive(nn.Module):
    def __init__(self):
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.last = nn.Linear(8, 3)

    def forward(self, x):
        rows = x.flatten(1, 2)
        return self.last(self.attention(rows, rows, rows)[0].mean(1))


def no_linear():
    return nn.Sequential(nn.Flatten())
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with factories."""
    (tmp_path / "nets.py").write_text(FACTORY, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def network(factory: str, folder: Path) -> tuple[nn.Module, Path]:
    """The network of a factory with other random weights than the factory's, and the file of these weights."""
    made = make_model(factory)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for tensor in made.state_dict().values():
            if tensor.is_floating_point():
                tensor.copy_(torch.rand(tensor.shape, generator=generator) + 0.1)
    torch.save(made.state_dict(), folder / "w.pt")
    return made, folder / "w.pt"


@pytest.mark.parametrize("factory", ["nets.py:Net", "nets.py:without_bias"])
def test_any_network_becomes_a_model_whose_head_can_be_replaced(factory: str, here: Path) -> None:
    own, path = network(factory, here)
    model = import_network(factory, path, (1, 8, 8))
    images = torch.rand(3, 1, 8, 8)
    torch.testing.assert_close(model(images), own(images))
    save_model(here / "m.safetensors", model)
    again = load_model(here / "m.safetensors")
    assert isinstance(again, ImageClassifier)
    torch.testing.assert_close(again(images), own(images))
    fresh = replace_head(again, 3, "finetune", 0).eval()
    assert fresh(images).shape == (3, 3)
    torch.testing.assert_close(fresh.backbone(images), again.backbone(images))
    (here / "nets.py").write_text(FACTORY + "\n", encoding="utf-8")
    with pytest.raises(UserError, match="has changed since its weights were taken over"):
        load_model(here / "m.safetensors")


def test_a_network_of_torchvision_does_as_well(tmp_path: Path) -> None:
    torch.manual_seed(0)
    own = torchvision.models.shufflenet_v2_x0_5(num_classes=4)
    save_file(own.eval().state_dict(), tmp_path / "w.safetensors")
    model = import_network("torchvision:shufflenet_v2_x0_5", tmp_path / "w.safetensors", (3, 32, 32))
    images = torch.rand(2, 3, 32, 32)
    torch.testing.assert_close(model(images), own(images))
    assert model.head.out_features == 4


@pytest.mark.parametrize(
    ("factory", "words"),
    [
        ("nets.py:Scaled", "its last Linear does not give the outputs"),
        ("nets.py:no_linear", "does not fit the model"),
        ("nets.py:Nett", "has no 'Nett'; did you mean 'Net'"),
        ("missing.py:Net", "there is no file .*missing.py"),
        ("w.pt", "is no function"),
    ],
)
def test_a_network_that_cannot_be_taken_over_is_refused(factory: str, words: str, here: Path) -> None:
    _, path = network("nets.py:Net", here)
    if factory == "w.pt":
        with pytest.raises(UserError, match=words):
            build_model(ModelSpec("from_factory", (1, 8, 8), 7, (0.0,), (1.0,), {"factory": factory}))
        return
    with pytest.raises(UserError, match=words):
        import_network(factory, path, (1, 8, 8))


def test_a_network_without_a_linear_has_no_place_for_a_head() -> None:
    for network in (nn.Sequential(nn.Flatten()), nn.Linear(3, 2)):
        with pytest.raises(UserError, match="mine: its network has no Linear inside it"):
            last_linear(network, "mine")


def test_weights_that_do_not_fit_and_images_that_are_not_taken_are_refused(here: Path) -> None:
    _, path = network("nets.py:Net", here)
    with pytest.raises(UserError, match=r"nets.py:Net cannot take images \(1, 9, 9\)"):
        import_network("nets.py:Net", path, (1, 9, 9))
    torch.save({"body.0.weight": torch.zeros(4, 1, 3, 3)}, path)
    with pytest.raises(UserError, match=r"does not fit the model \(missing: "):
        import_network("nets.py:Net", path, (1, 8, 8))
    with pytest.raises(UserError, match=r"none.pt is not there; name an existing file"):
        import_network("nets.py:Net", here / "none.pt", (1, 8, 8))


def test_a_model_file_of_ours_is_a_start_too(tmp_path: Path) -> None:
    model = small_model().eval()
    save_model(tmp_path / "m.safetensors", model)
    again = import_own("small_cnn", tmp_path / "m.safetensors", 12)
    images = torch.rand(2, 1, 12, 12)
    assert torch.equal(again(images), model(images))
    assert again.spec.mean == pytest.approx(model.spec.mean)
    with pytest.raises(UserError, match="does not fit the model"):
        import_own("lenet5", tmp_path / "m.safetensors", 28)
    torch.save(model.backbone.state_dict(), tmp_path / "part.pt")
    with pytest.raises(UserError, match=r"has no normalize.mean, so that it is no model of backbone 'small_cnn'"):
        import_own("small_cnn", tmp_path / "part.pt", 12)


@pytest.mark.slow
def test_fine_tuning_goes_on_from_such_a_network_and_a_layer_that_no_rule_takes_ends_it(
    digits: Path, here: Path
) -> None:
    settings = '{"epochs": 1, "batch_size": 100, "train_images": 200, "learning_rate": 0.001}'
    for factory, rule in (("nets.py:Net", "frsf"), ("nets.py:Attentive", "frsf"), ("nets.py:Attentive", "bp")):
        _, path = network(factory, here)
        start, output = here / "start.safetensors", here / f"{rule}.safetensors"
        by = ["--backbone", "from_factory", "--factory", factory, "--size", "8", "--channels", "1"]
        done = stage("import_weights", *by, "--file", path, "--sha256", files.file_sha256(path)[:12], "--output", start)
        assert done.returncode == 0, done.stderr
        tuning = ["--data", digits, "--pretrained", start, "--rule", rule, "--settings", settings, "--output", output]
        done = stage("finetune", *tuning)
        refused = factory == "nets.py:Attentive" and rule != "bp"
        assert done.returncode == (2 if refused else 0), done.stderr
        if refused:
            assert done.stderr.count("\n") == 1
            assert "no feedback rule can be put on layer 'backbone.attention'" in done.stderr
