"""Any module is saved and loaded by the factory that makes it; what is refused."""

import json
from pathlib import Path

import pytest
import torch
from torch import nn

from creditflow.core.errors import UserError
from creditflow.feedback.apply import apply_rule, feedback_state
from creditflow.models.storage import load_classifier, load_feedback, load_model, read_sidecar, save_model
from helpers import small_model

MODULE = """
import torch
from torch import nn

class Tied(nn.Module):
    '''Two layers with the same weight, a buffer, and batch normalisation.'''
    def __init__(self, width=6):
        super().__init__()
        self.norm = nn.BatchNorm1d(width)
        self.first, self.second = nn.Linear(width, width), nn.Linear(width, width)
        self.second.weight = self.first.weight
        self.register_buffer("scale", torch.rand(1))

    def forward(self, x):
        x = x.flatten(1)
        return self.second(torch.tanh(self.first(self.norm(x)))) * self.scale

def make():
    return Tied()

def wider():
    return Tied(8)

class Stateful(Tied):
    def get_extra_state(self):
        return {"a": 1}
    def set_extra_state(self, state):
        pass

def lazy():
    return nn.LazyLinear(3)
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "nets.py"
    path.write_text(MODULE, encoding="utf-8")
    return path


def made(name: str = "make") -> nn.Module:
    from creditflow.models.factories import make_model

    model = make_model(f"nets.py:{name}")
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_()
    return model


@pytest.mark.usefixtures("module")
def test_what_is_loaded_is_what_was_saved(tmp_path: Path) -> None:
    model, x = made(), torch.rand(5, 1, 2, 3)
    save_model("out/m.safetensors", model, factory="nets.py:make", rule="mine", seed=3)
    state = torch.get_rng_state()
    loaded = load_model("out/m.safetensors")
    assert torch.equal(torch.get_rng_state(), state)
    assert type(loaded).__name__ == "Tied" and not loaded.training
    assert loaded.second.weight is loaded.first.weight
    torch.testing.assert_close(loaded(x), model.eval()(x), rtol=0, atol=0)
    sidecar = read_sidecar(tmp_path / "out/m.safetensors")
    assert sidecar["seed"] == 3 and sidecar["spec"]["factory"] == "nets.py:make"
    with pytest.raises(UserError, match="is Tied, which a factory makes; name a network that a stage trained"):
        load_classifier("out/m.safetensors")


@pytest.mark.usefixtures("module")
def test_rules_work_on_loaded_models() -> None:
    model, x = made(), torch.rand(5, 1, 2, 3, requires_grad=True)
    model.second.weight = nn.Parameter(model.second.weight.detach().clone())
    (Path.cwd() / "other.py").write_text(
        "from torch import nn\n\ndef make():\n    return nn.Sequential(nn.Flatten(), nn.Linear(6, 5), nn.Tanh(),"
        " nn.Linear(5, 4))\n",
        encoding="utf-8",
    )
    from creditflow.models.factories import make_model

    view = apply_rule(make_model("other.py:make"), "fa", generator=torch.Generator().manual_seed(0))
    save_model("m.safetensors", view, factory="other.py:make", rule="fa", feedback=feedback_state(view))
    rule, state = load_feedback("m.safetensors")
    again = apply_rule(load_model("m.safetensors"), rule, state=state)
    gradients = [torch.autograd.grad(each(x).square().sum(), x)[0] for each in (view, again)]
    assert torch.equal(*gradients)


def test_the_factory_may_lie_beside_the_model(module: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    save_model("m.safetensors", made(), factory="nets.py:make")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert load_model(tmp_path / "m.safetensors")
    module.rename(tmp_path / "moved.py")
    with pytest.raises(UserError, match=r"is made by nets.py:make, which is neither in .*elsewhere nor in .*; put the"):
        load_model(tmp_path / "m.safetensors")


def test_a_changed_factory_is_noticed(module: Path) -> None:
    save_model("m.safetensors", made(), factory="nets.py:make")
    module.write_text(MODULE + "\n# changed\n", encoding="utf-8")
    with pytest.raises(UserError, match=r"nets\.py:make has changed since m\.safetensors was saved") as caught:
        load_model("m.safetensors")
    assert "\n" not in str(caught.value)


@pytest.mark.usefixtures("module")
@pytest.mark.parametrize(
    ("factory", "message"),
    [
        (None, 'Tied can be loaded again only by what makes it; give factory="my_module.py:make_model"'),
        (7, "factory is a text such as 'my_module.py:make_model', not int"),
        ("nets.py", "names a file, but no function"),
        ("nothere.py:make", "there is no file"),
        ("nets.py:mke", "has no 'mke'; did you mean 'make'"),
        ("nets.py:wider", "nets.py:wider makes another model: this one has norm.weight with shape"),
        ("torchvision:resnet18", "makes another model: this one has"),
    ],
)
def test_factories_that_do_not_make_the_model(factory: str | None, message: str) -> None:
    with pytest.raises(UserError) as caught:
        save_model("m.safetensors", made(), factory=factory)
    assert message in str(caught.value) and "\n" not in str(caught.value)
    assert not Path("m.safetensors").exists()


@pytest.mark.usefixtures("module")
@pytest.mark.parametrize(
    ("name", "message"), [("Stateful", "in its state dict, which is no tensor"), ("lazy", "without a shape yet")]
)
def test_states_that_cannot_be_stored(name: str, message: str) -> None:
    from creditflow.models.factories import make_model

    with pytest.raises(UserError, match=message):
        save_model("m.safetensors", make_model(f"nets.py:{name}"), factory=f"nets.py:{name}")


@pytest.mark.usefixtures("module")
def test_half_precision_is_not_turned_into_another_model() -> None:
    with pytest.raises(UserError, match=r"type torch.float16, the factory's has shape \(1,\) and type torch.float32"):
        save_model("m.safetensors", made().half(), factory="nets.py:make")


@pytest.mark.usefixtures("module")
def test_what_is_no_module_is_refused_in_one_line(tmp_path: Path) -> None:
    for wrong in ({"weight": torch.zeros(1)}, None):
        with pytest.raises(UserError, match=r"a model is a torch.nn.Module, not"):
            save_model(tmp_path / "m.safetensors", wrong)
    save_model("m.safetensors", small_model())  # our own networks need no factory
    assert "factory" not in json.loads(Path("m.json").read_text(encoding="utf-8"))["spec"]
