"""Backbones of torchvision and their published weights: they compute what torchvision computes; files are verified."""

import json
import re
from pathlib import Path

import pytest
import torch

from creditflow.compute.torchvision_import import torchvision
from creditflow.core import files, plugins
from creditflow.core.errors import UserError
from creditflow.models.build import ModelSpec, build_model, replace_head
from creditflow.models.published import fetch_weights, import_state, published_digits, torchvision_model, verify
from creditflow.models.storage import load_model, read_sidecar
from helpers import stage

BACKBONES = ("resnet18", "alexnet", "vgg16")


def with_random_weights(backbone: str) -> torch.nn.Module:
    """torchvision's network. Large tensors repeat what is drawn, as to draw VGG's alone would take a second."""
    torch.manual_seed(0)
    with torch.device("meta"):
        network: torch.nn.Module = getattr(torchvision.models, backbone)(weights=None)
    network.to_empty(device="cpu")
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.reset_parameters()
            elif isinstance(module, torch.nn.Conv2d | torch.nn.Linear):
                if module.bias is not None:
                    module.bias.normal_(std=0.1)
                n_weights, drawn = module.weight.numel(), torch.randn(100_003)
                scale = (2 / module.weight[0].numel()) ** 0.5
                repeated = drawn.mul_(scale).repeat(-(-n_weights // len(drawn)))[:n_weights]
                module.weight.copy_(repeated.view_as(module.weight))
    return network


def published(backbone: str, folder: Path, name: str | None = None) -> tuple[torch.nn.Module, Path]:
    """torchvision's network with random weights, and its file as torchvision would publish it."""
    network = with_random_weights(backbone).eval()
    path = folder / "weights.pth"
    torch.save(network.state_dict(), path)
    return network, path.rename(folder / (name or f"{backbone}-{files.file_sha256(path)[:8]}.pth"))


@pytest.fixture(scope="module")
def resnet(tmp_path_factory: pytest.TempPathFactory) -> tuple[torch.nn.Module, Path]:
    return published("resnet18", tmp_path_factory.mktemp("weights"))


@pytest.mark.parametrize("backbone", BACKBONES)
def test_every_backbone_is_torchvisions_and_its_weights_have_an_address_and_a_hash(backbone: str) -> None:
    model = torchvision_model(backbone)
    address = model.weights_address("IMAGENET1K_V1")
    assert address.startswith("https://")
    assert backbone in address
    assert model.normalisation("IMAGENET1K_V1") == ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    with pytest.raises(UserError, match="has no weights 'IMAGENET1K_V9'; torchvision has IMAGENET1K_V1"):
        model.weights_address("IMAGENET1K_V9")


@pytest.mark.parametrize("backbone", BACKBONES)
def test_an_imported_model_computes_what_torchvisions_network_computes(backbone: str, tmp_path: Path) -> None:
    network, path = published(backbone, tmp_path, "any_name.pth")
    model = import_state(backbone, path, "IMAGENET1K_V1", 64)
    images = torch.rand(2, 3, 64, 64)
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    torch.testing.assert_close(model(images), network((images - mean) / std))


def test_the_stage_makes_a_model_that_fine_tuning_takes(resnet: tuple[torch.nn.Module, Path], tmp_path: Path) -> None:
    _, path = resnet
    output = tmp_path / "imported.safetensors"
    done = stage("import_weights", "--backbone", "resnet18", "--file", path, "--size", "32", "--output", output)
    assert done.returncode == 0, done.stderr
    model = load_model(output)
    assert model.spec == ModelSpec("resnet18", (3, 32, 32), 1000, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    sidecar = read_sidecar(output)
    # The right name and normalisation do not make them the weights that torchvision publishes.
    assert sidecar["settings"]["published"] is False and sidecar["settings"]["weights"] == "IMAGENET1K_V1"
    assert sidecar["settings"]["sha256"] == files.file_sha256(path)
    fresh = replace_head(model, 10, "finetune", 0)
    assert fresh.head.out_features == 10
    assert torch.equal(fresh.backbone.conv1.weight, model.backbone.conv1.weight)


def test_weights_of_another_architecture_are_refused(resnet: tuple[torch.nn.Module, Path], tmp_path: Path) -> None:
    _, path = resnet
    with pytest.raises(UserError, match=r"not those of alexnet: they have no layer classifier\.6"):
        import_state("alexnet", path, "IMAGENET1K_V1", 64)
    _, deeper = published("resnet34", tmp_path)
    done = stage("import_weights", "--backbone", "resnet18", "--file", deeper, "--output", tmp_path / "m.safetensors")
    assert done.returncode == 2
    assert "do not fit this network" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "m.safetensors").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"nothing like it", "cannot be read as a state dict"), (b"", "cannot be read as a state dict")],
)
def test_a_file_of_something_else_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "w.pth"
    path.write_bytes(content)
    with pytest.raises(UserError, match=message):
        import_state("resnet18", path, "IMAGENET1K_V1", 64)


def test_nothing_is_unpickled(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self):  # type: ignore[no-untyped-def]
            return Path.touch, (tmp_path / "was here",)

    torch.save({"fc.weight": Evil()}, tmp_path / "w.pth")
    with pytest.raises(UserError, match="cannot be read as a state dict"):
        import_state("resnet18", tmp_path / "w.pth", "IMAGENET1K_V1", 64)
    assert not (tmp_path / "was here").exists()


def test_a_hash_is_verified_and_has_to_be_known(resnet: tuple[torch.nn.Module, Path], tmp_path: Path) -> None:
    _, path = resnet
    whole = files.file_sha256(path)
    assert verify(path, None) == verify(path, whole) == verify(path, whole[:8]) == whole
    damaged = tmp_path / path.name
    damaged.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(UserError, match="truncated, corrupt or another file"):
        verify(damaged, None)
    nameless = tmp_path / "mine.pth"
    nameless.write_bytes(b"x")
    with pytest.raises(UserError, match="give its sha256"):
        verify(nameless, None)
    with pytest.raises(UserError, match="sha256 'ABC' is not 8 to 64 hexadecimal digits in lower case"):
        verify(nameless, "ABC")


def local_weights(folder: Path, monkeypatch: pytest.MonkeyPatch, content: bytes) -> Path:
    """A folder that has a file of the published name, which the published hash now fits."""
    name = f"resnet18-{files.sha256(content)[:8]}.pth"
    (folder / "w").mkdir()
    (folder / "w" / name).write_bytes(content)
    kind = type(torchvision_model("resnet18"))
    monkeypatch.setattr(kind, "weights_address", lambda self, weights: f"http://localhost:9/{name}")
    return folder / "w" / name


def test_weights_come_from_a_local_folder_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    local = local_weights(tmp_path, monkeypatch, b"weights")
    origin = fetch_weights("resnet18", "IMAGENET1K_V1", [tmp_path, tmp_path / "w"], tmp_path / "data/out.pth")
    assert origin == str(local)
    assert (tmp_path / "data/out.pth").read_bytes() == b"weights"
    # The name under which it lies now has no hash: torchvision's counts.
    digits = verify(tmp_path / "data/out.pth", None, lambda: published_digits("resnet18", "IMAGENET1K_V1"))
    assert digits == files.sha256(b"weights")
    (tmp_path / "data/out.pth").write_bytes(b"tampered with")
    with pytest.raises(UserError, match="truncated, corrupt or another file"):
        verify(tmp_path / "data/out.pth", None, lambda: published_digits("resnet18", "IMAGENET1K_V1"))


def test_damaged_local_weights_end_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    local_weights(tmp_path, monkeypatch, b"weights").write_bytes(b"other")
    with pytest.raises(UserError, match="truncated, corrupt or another file"):
        fetch_weights("resnet18", "IMAGENET1K_V1", [tmp_path / "w"], tmp_path / "data/out.pth")
    assert list((tmp_path / "data").iterdir()) == []


def test_weights_that_cannot_be_fetched_say_where_to_put_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    local = local_weights(tmp_path, monkeypatch, b"weights")
    with pytest.raises(
        UserError, match=rf"cannot be fetched.*put {local.name} into a folder and name the folder in data\.search_paths"
    ):
        fetch_weights("resnet18", "IMAGENET1K_V1", [], tmp_path / "data/out.pth")
    assert list((tmp_path / "data").iterdir()) == []


def test_a_download_is_verified(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    local = local_weights(tmp_path, monkeypatch, b"weights")
    kind = type(torchvision_model("resnet18"))
    monkeypatch.setattr(kind, "weights_address", lambda self, weights: local.as_uri())
    fetch_weights("resnet18", "IMAGENET1K_V1", [], tmp_path / "data/out.pth")
    assert (tmp_path / "data/out.pth").read_bytes() == b"weights"
    local.write_bytes(b"tampered with")
    with pytest.raises(UserError, match="cannot be fetched"):
        fetch_weights("resnet18", "IMAGENET1K_V1", [], tmp_path / "data/again.pth")
    assert {path.name for path in (tmp_path / "data").iterdir()} == {"out.pth", "out.sha256"}


def test_whole_hashes_are_compared_where_they_are_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for backbone in ("alexnet", "resnet18", "vgg16"):
        whole = published_digits(backbone, "IMAGENET1K_V1")
        assert re.fullmatch("[0-9a-f]{64}", whole)
        assert f"-{whole[:8]}.pth" in torchvision_model(backbone).weights_address("IMAGENET1K_V1")
    assert published_digits("vgg16", "IMAGENET1K_FEATURES") == "88682ab5"
    # A file that somebody made so that its first eight digits are right.
    path = tmp_path / "resnet18-f37072fd.pth"
    path.write_bytes(b"made to fit")
    monkeypatch.setattr(files, "file_sha256", lambda path: "f37072fd" + "0" * 56)
    with pytest.raises(UserError, match=r"begins with f37072fd00000000, not f37072fd47e89c5e; replace it"):
        verify(path, None)


def test_the_whole_hash_of_what_was_fetched_is_noted_and_compared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    local = local_weights(tmp_path, monkeypatch, b"weights")
    out = tmp_path / "data/IMAGENET1K_V1.pth"
    fetch_weights("resnet18", "IMAGENET1K_V1", [local.parent], out)
    whole = files.sha256(b"weights")
    assert out.with_suffix(".sha256").read_text(encoding="utf-8") == f"{whole}  IMAGENET1K_V1.pth\n"
    assert verify(out, whole[:8]) == whole
    monkeypatch.setattr(files, "file_sha256", lambda path: whole[:8] + "0" * 56)
    with pytest.raises(UserError, match=f"not {whole[:16]}; replace it"):
        verify(out, whole[:8])


def test_our_own_backbones_have_no_published_weights() -> None:
    with pytest.raises(UserError, match="is not torchvision's"):
        torchvision_model("lenet5")
    assert {
        name for name in plugins.names("backbone") if hasattr(plugins.load("backbone", name), "TORCHVISION")
    } == set(BACKBONES)


@pytest.mark.parametrize(
    ("backbone", "shape", "message"),
    [
        ("resnet18", (1, 32, 32), "three channels, not 1; set input.channels: 3"),
        ("alexnet", (3, 32, 32), "at least 63x63, not 32x32; set input.size"),
    ],
)
def test_images_that_a_backbone_does_not_take(backbone: str, shape: tuple[int, int, int], message: str) -> None:
    with pytest.raises(UserError, match=message):
        build_model(ModelSpec(backbone, shape, 10, (0.5,) * shape[0], (0.2,) * shape[0]))


@pytest.mark.parametrize("backbone", BACKBONES)
def test_the_smallest_images_a_backbone_claims_to_take(backbone: str) -> None:
    size = torchvision_model(backbone).smallest
    model = build_model(ModelSpec(backbone, (3, size, size), 10, (0.5,) * 3, (0.2,) * 3)).eval()
    assert model(torch.rand(1, 3, size, size)).shape == (1, 10)


def test_settings_of_the_sidecar_are_plain_json(resnet: tuple[torch.nn.Module, Path], tmp_path: Path) -> None:
    done = stage(
        "import_weights", "--backbone", "resnet18", "--file", resnet[1], "--output", tmp_path / "m.safetensors"
    )
    assert done.returncode == 0
    assert json.loads((tmp_path / "m.json").read_text(encoding="utf-8"))["settings"]["weights"] == "IMAGENET1K_V1"
