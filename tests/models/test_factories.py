"""Models from text: each form gives the network that torch or torchvision itself gives, and mistakes are one line."""

import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from creditflow.compute.torchvision_import import torchvision
from creditflow.core.errors import UserError
from creditflow.core.factory import parse_source
from creditflow.core.files import file_sha256
from creditflow.models.factories import make_model
from creditflow.models.storage import save_model
from helpers import small_model

MODULE = """
import dataclasses
import torch
from torch import nn
import neighbour

@dataclasses.dataclass
class Facts:
    width: int = 4

class Network(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer, self.dropout = nn.Linear(3, Facts().width), nn.Dropout()

    def forward(self, x):
        import later  # found when the network runs
        return later.SCALE * self.dropout(self.layer(x))

def make():
    return Network()

def needs(width, *, depth, other=1, **rest):
    return Network()

def raises():
    raise ValueError("first line\\nsecond line")

def leaves():
    raise SystemExit(3)

def number():
    return 3

constant = 5
made = Network()
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "mine.py").write_text(MODULE, encoding="utf-8")
    (tmp_path / "neighbour.py").write_text("", encoding="utf-8")
    (tmp_path / "later.py").write_text("SCALE = 1\n", encoding="utf-8")
    (tmp_path / "lacking.py").write_text("import nothing_of_this_name\n", encoding="utf-8")
    (tmp_path / "unfinished.py").write_text("x = 1\ndef f(:\n", encoding="utf-8")
    return tmp_path


class Plain(nn.Module):
    """What torch.jit and torch.export take."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.ReLU(), nn.Flatten(), nn.Linear(72, 3))

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.layers(x)
        return logits


@pytest.mark.parametrize("source", ["mine.py:make", "mine.py:Network", "mine:make", "mine.py:made"])
def test_a_function_a_class_and_a_module(folder: Path, source: str) -> None:
    sys.modules.pop("mine", None)  # another test's module of this name
    before = torch.random.get_rng_state()
    model = make_model(source, base=folder)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert not any(module.training for module in model.modules())
    assert model(torch.ones(2, 3)).shape == (2, 4)
    weights = model.state_dict()
    assert all(
        torch.equal(value, weights[name]) for name, value in make_model(source, base=folder).state_dict().items()
    )


def test_the_same_network_with_its_weights(folder: Path) -> None:
    trained = make_model("mine.py:make", base=folder)
    nn.init.normal_(trained.get_submodule("layer").weight)
    save_file(trained.state_dict(), folder / "weights.safetensors")
    digits = file_sha256(folder / "weights.safetensors")[:12]
    loaded = make_model("mine.py:make", weights=Path("weights.safetensors"), sha256=digits, base=folder)
    assert torch.equal(loaded(torch.ones(1, 3)), trained(torch.ones(1, 3)))


def test_a_network_of_torchvision_has_the_outputs_that_are_asked_for_or_those_of_its_weights(tmp_path: Path) -> None:
    assert make_model("torchvision:squeezenet1_1:7").get_parameter("classifier.1.bias").shape == (7,)
    trained = torchvision.models.mobilenet_v3_small(num_classes=5).eval()
    torch.save(
        {"state_dict": {f"module.{name}": value for name, value in trained.state_dict().items()}}, tmp_path / "w.pt"
    )
    loaded = make_model("torchvision:mobilenet_v3_small", weights=tmp_path / "w.pt")
    images = torch.rand(2, 3, 32, 32)
    assert torch.equal(loaded(images), trained(images))


def test_files_with_a_whole_model_compute_the_same_and_have_the_same_gradient(tmp_path: Path) -> None:
    model, images = Plain().eval(), torch.rand(5, 1, 8, 8)
    torch.jit.script(model).save(tmp_path / "scripted.pt")
    flexible = torch.export.export(model, (images,), dynamic_shapes=({0: torch.export.Dim.DYNAMIC},))
    torch.export.save(flexible, tmp_path / "exported.pt2")
    for name in ("scripted.pt", "exported.pt2"):
        loaded = make_model(name, base=tmp_path)
        x, y = images[:3].clone().requires_grad_(), images[:3].clone().requires_grad_()
        assert torch.allclose(loaded(x), model(y), atol=1e-6), name
        loaded(x).square().sum().backward()
        model(y).square().sum().backward()
        assert torch.allclose(x.grad, y.grad, atol=1e-5), name
    assert torch.equal(loaded.train()(x), loaded(x))  # an exported model stays in the mode of its export
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 3))
    torch.export.save(torch.export.export(model, (images,)), tmp_path / "fixed.pt2")
    with pytest.raises(UserError, match=r"takes batches of exactly 5 images; export it with dynamic_shapes"):
        make_model("fixed.pt2", base=tmp_path)


def test_a_model_of_ours(tmp_path: Path) -> None:
    model = small_model().eval()
    save_model(tmp_path / "ours.safetensors", model)
    images = torch.rand(2, 1, 12, 12)
    assert torch.equal(make_model("ours.safetensors", base=tmp_path)(images), model(images))


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("mine.py:needs", "needs arguments (width, depth); name a function without arguments"),
        ("mine.py:raises", "raised ValueError: first line second line (mine.py, line 27); mend it"),
        ("mine.py:leaves", "raised SystemExit: 3 (mine.py, line 30); mend it"),
        ("mine.py:number", "returns int, not a torch.nn.Module; return the network"),
        ("mine.py:constant", "is no function but int; name a function"),
        ("mine.py:mak", "mine.py has no 'mak'; did you mean 'make'?"),
        ("mine.py", "names a file, but no function in it; write mine.py:function"),
        ("absent.py:make", "there is no file"),
        ("lacking.py:make", "ModuleNotFoundError: No module named 'nothing_of_this_name'; mend it, or install what it"),
        ("unfinished:f", "cannot be imported: invalid syntax (unfinished.py, line 2)"),
        ("nothing.here:make", "No module named 'nothing'"),
        ("torchvision:resnet19", "torchvision has no classifier 'resnet19'; did you mean 'resnet1"),
        ("torchvision:resnet18:0", "names no network of torchvision; write torchvision:resnet18, "),
        ("torchvision:resnet18@V9", "has no weights 'V9'; choose from: IMAGENET1K_V1"),
        ("mine.pt", "there is no file"),
        ("a model", "names no model; write file.py:function, package.module:function"),
    ],
)
def test_mistakes_are_one_line(folder: Path, source: str, message: str) -> None:
    with pytest.raises(UserError) as raised:
        make_model(source, base=folder)
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)


def test_files_that_are_no_models(tmp_path: Path, folder: Path) -> None:
    torch.save(nn.Linear(2, 2).state_dict(), tmp_path / "weights.pt")
    (tmp_path / "broken.pt2").write_bytes(b"nothing")
    for source, message in (
        ("weights.pt", "is no TorchScript file"),
        ("broken.pt2", "cannot be read as a file of torch."),
    ):
        with pytest.raises(UserError, match=message):
            make_model(source, base=tmp_path)
    with pytest.raises(UserError, match="a SHA-256 is that of a file of weights; name this file, too"):
        make_model("mine.py:make", sha256="0" * 8, base=folder)
    with pytest.raises(UserError, match="is truncated, corrupt or another file"):
        make_model("weights.pt", sha256="0" * 8, base=tmp_path)


def test_a_torchscript_file_whose_sizes_ask_for_too_much_memory_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which damage makes torch ask for it depends on the machine, so torch's reader is replaced."""

    def exhausted(*_: object, **__: object) -> None:
        raise MemoryError("std::bad_alloc")

    monkeypatch.setattr(torch.jit, "load", exhausted)
    (tmp_path / "mine.pt").write_bytes(b"PK")
    with pytest.raises(UserError, match=r"mine\.pt is no TorchScript file"):
        make_model("mine.pt", base=tmp_path)


def test_what_a_text_says_is_known_without_a_file() -> None:
    assert parse_source("torchvision:resnet18@DEFAULT").weights == "DEFAULT"
    assert parse_source("torchvision:vit_b_16:10").n_classes == 10
    source = parse_source("models/nets.py:make")
    assert (source.kind, source.function) == ("file", "make")
    assert source.file(Path("/base")) == Path("/base/models/nets.py")
    assert parse_source("a.b:make").file(Path("/base")) is None
