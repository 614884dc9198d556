"""Models: definitions, files, and what is refused."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from creditflow import apply_rule, feedback_state, load_feedback, load_model, save_model
from creditflow.core.errors import UserError
from creditflow.models.build import ModelSpec, build_model, replace_head
from helpers import small_model, stage

GREY = {"n_classes": 10, "mean": (0.3,), "std": (0.2,)}


@pytest.mark.parametrize(
    ("shape", "mean"), [((1, 28, 28), (0.3,)), ((1, 32, 32), (0.3,)), ((3, 32, 32), (0.3, 0.4, 0.5))]
)
def test_lenet5_has_the_known_number_of_parameters(shape: tuple[int, int, int], mean: tuple[float, ...]) -> None:
    model = build_model(ModelSpec("lenet5", shape, 10, mean, mean))
    # LeCun et al.'s layers, fully connected from S2 to C3: 61,706 with one input channel, 150 more per further one.
    assert sum(p.numel() for p in model.parameters()) == 61706 + 150 * (shape[0] - 1)
    assert model(torch.rand(2, *shape)).shape == (2, 10)


def test_lenet5_computes_what_it_does_with_relu_before_pooling() -> None:
    ours = build_model(ModelSpec("lenet5", (1, 28, 28), **GREY)).backbone
    assert isinstance(ours, nn.Sequential)
    order = [0, 2, 1, 3, 5, 4, *range(6, len(ours))]
    images = torch.randn((20, 1, 28, 28), generator=torch.Generator().manual_seed(0), requires_grad=True)
    results = []
    for network in (ours, nn.Sequential(*(ours[place] for place in order))):
        output = network(images)
        results.append([output, *torch.autograd.grad(output.square().sum(), [images, *ours.parameters()])])
    assert isinstance(ours[1], nn.MaxPool2d) and isinstance(ours[2], nn.ReLU)
    for swapped, usual in zip(*results, strict=True):
        assert torch.equal(swapped, usual)


@pytest.mark.parametrize(("backbone", "shape"), [("lenet5", (1, 8, 8)), ("small_cnn", (1, 7, 9))])
def test_a_backbone_refuses_images_it_is_not_made_for(backbone: str, shape: tuple[int, int, int]) -> None:
    with pytest.raises(UserError, match=f"{shape[1]}x{shape[2]}"):
        build_model(ModelSpec(backbone, shape, **GREY))


def test_normalisation_is_inside_the_model() -> None:
    model = small_model().eval()
    x = torch.rand(3, 1, 12, 12)
    expected = model.head(model.backbone((x - 0.3) / 0.2))
    torch.testing.assert_close(model(x), expected)
    assert "normalize.mean" in model.state_dict()


def test_initialisation_depends_on_its_names_alone() -> None:
    torch.manual_seed(1)
    first = small_model(seed=3)
    torch.manual_seed(2)
    before = torch.get_rng_state()
    same, other = small_model(seed=3), small_model(seed=4)
    assert torch.equal(before, torch.get_rng_state())
    assert torch.equal(first.head.weight, same.head.weight)
    assert not torch.equal(first.head.weight, other.head.weight)


def test_a_fresh_head_keeps_the_backbone() -> None:
    model = small_model(3)
    fresh = replace_head(model, 7, "finetune", 0)
    assert fresh.head.out_features == 7
    for copied, original in zip(fresh.backbone.parameters(), model.backbone.parameters(), strict=True):
        assert torch.equal(copied, original)
    assert torch.equal(fresh.head.weight, replace_head(model, 7, "finetune", 0).head.weight)
    assert not torch.equal(fresh.head.weight, replace_head(model, 7, "finetune", 1).head.weight)


def test_the_loaded_model_is_plain_with_the_same_logits_and_exact_gradients(tmp_path: Path) -> None:
    model = small_model()
    view = apply_rule(model, "frsf", generator=torch.Generator().manual_seed(0))
    path = tmp_path / "model.safetensors"
    save_model(path, model, rule="frsf", feedback=feedback_state(view), seed=3)
    loaded = load_model(path)
    rule, state = load_feedback(path)
    loaded_view = apply_rule(loaded, rule, state=state).eval()
    x = torch.rand(4, 1, 12, 12, requires_grad=True)
    model.eval(), view.eval()
    assert torch.equal(loaded(x), model(x))
    for stored, saved in ((loaded, model), (loaded_view, view)):
        for a, b in zip(
            torch.autograd.grad(stored(x).square().sum(), [x, *stored.parameters()]),
            torch.autograd.grad(saved(x).square().sum(), [x, *saved.parameters()]),
            strict=True,
        ):
            assert torch.equal(a, b)
    assert {type(module).__module__ for module in loaded.backbone.modules()} <= {
        f"torch.nn.modules.{m}"
        for m in ("container", "conv", "batchnorm", "activation", "pooling", "flatten", "linear")
    }
    # An ordinary state dict: nothing of the rule among the weights.
    assert load_file(path).keys() == model.state_dict().keys()
    assert json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))["seed"] == 3


@pytest.mark.parametrize("suffix", [".safetensors", ".feedback.safetensors", ".json"])
@pytest.mark.parametrize(
    "damage", [lambda b: b[:-4], lambda b: b"", lambda b: b"text", None], ids=["cut", "empty", "text", "missing"]
)
def test_a_damaged_model_is_refused_with_its_name(
    suffix: str, damage: Callable[[bytes], bytes] | None, tmp_path: Path
) -> None:
    path = tmp_path / "model.safetensors"
    view = apply_rule(small_model(), "usf")
    save_model(path, small_model(), rule="usf", feedback=feedback_state(view))
    victim = path.with_suffix(suffix)
    if damage is None:
        victim.unlink()
    else:
        victim.write_bytes(damage(victim.read_bytes()))
    with pytest.raises(UserError, match=str(victim)):
        load_feedback(path) if "feedback" in suffix else load_model(path)


def test_a_file_that_is_no_model_ends_the_stage_in_one_line(digits: Path, tmp_path: Path) -> None:
    done = stage(
        "attack",
        "--attack",
        "fgsm",
        "--epsilons",
        "0.1",
        "--model",
        digits,
        "--data",
        digits,
        "--record",
        tmp_path / "r.json",
    )
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    assert str(digits.with_suffix(".json")) in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "change", [{"sha256": {}}, {"sha256": 1}, {"spec": {"backbone": "small_cnn"}}, {"spec": 3}, {"format": 2}]
)
def test_a_sidecar_that_does_not_describe_a_model_is_refused(change: dict[str, object], tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save_model(str(path), small_model())
    sidecar = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
    path.with_suffix(".json").write_text(json.dumps(sidecar | change), encoding="utf-8")
    with pytest.raises(UserError, match="is damaged or was edited"):
        load_model(path)
    del sidecar["seal"]
    path.with_suffix(".json").write_text(json.dumps(sidecar | change), encoding="utf-8")
    with pytest.raises(UserError, match=str(tmp_path)):
        load_model(path)
