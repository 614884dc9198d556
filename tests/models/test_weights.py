"""Weights from files: what torch itself loads is what we load, prefixes and nests are said, and misfits are named."""

import pickle
import zipfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from creditflow.core.errors import UserError
from creditflow.core.files import file_sha256
from creditflow.models.weights import load_weights


def network() -> nn.Module:
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))


def state(prefix: str = "") -> dict[str, torch.Tensor]:
    return {f"{prefix}{name}": value for name, value in network().state_dict().items()}


def test_every_way_to_store_a_state_dict(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plain = state()
    save_file(plain, tmp_path / "w.safetensors")
    torch.save(plain, tmp_path / "w.pt")
    torch.save({"epoch": 3, "state_dict": plain, "optimizer": {"lr": 0.1}}, tmp_path / "nested.ckpt")
    torch.save({"model": {f"module.{name}": value for name, value in plain.items()}}, tmp_path / "parallel.pth")
    torch.save({f"_orig_mod.{name}": value for name, value in plain.items()}, tmp_path / "compiled.bin")
    said = {}
    for path in sorted(tmp_path.iterdir()):
        model = network()
        load_weights(model, path, sha256=file_sha256(path))
        assert all(torch.equal(value, plain[name]) for name, value in model.state_dict().items()), path
        said[path.name] = capsys.readouterr().err
    assert said["w.pt"] == said["w.safetensors"] == ""
    assert "the weights are what it has under 'state_dict'" in said["nested.ckpt"]
    assert "'model'" in said["parallel.pth"] and "'module.' (of torch.nn.DataParallel)" in said["parallel.pth"]
    assert "'_orig_mod.' (of torch.compile), which is left out" in said["compiled.bin"]


def test_a_model_that_is_wrapped_itself_keeps_the_names(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save(state("module."), tmp_path / "w.pt")
    load_weights(nn.DataParallel(network()), tmp_path / "w.pt")
    assert capsys.readouterr().err == ""


def test_misfits_are_named_and_nothing_is_guessed(tmp_path: Path) -> None:
    cases = {
        "missing: 2.weight": {name: value for name, value in state().items() if name != "2.weight"},
        "unexpected: more": state() | {"more": torch.ones(1)},
        "other shapes: 2.bias is (5,) in the file and (2,) in the model": state() | {"2.bias": torch.ones(5)},
        "missing: 0.weight, 0.bias, 1.weight and 5 more; unexpected: backbone.": {
            **{f"backbone.{name}": value for name, value in state().items()},
            "head": torch.ones(1),
        },
    }
    for message, content in cases.items():
        torch.save(content, tmp_path / "w.pt")
        with pytest.raises(UserError) as raised:
            load_weights(network(), tmp_path / "w.pt")
        assert message in str(raised.value) and "\n" not in str(raised.value)
        assert "w.pt does not fit the model (" in str(raised.value)


class Attacker:
    """Whoever unpickles it runs its code."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return exec, ("raise RuntimeError('code of the file has run')",)


def test_files_that_hold_something_else(tmp_path: Path) -> None:
    torch.save(network(), tmp_path / "module.pt")
    torch.save({"state_dict": state(), "model": state()}, tmp_path / "two.pt")
    torch.save([1, 2], tmp_path / "list.pt")
    (tmp_path / "attack.pt").write_bytes(pickle.dumps(Attacker()))
    (tmp_path / "text.safetensors").write_text("nothing", encoding="utf-8")
    torch.save(state(), tmp_path / "whole.pt")
    (tmp_path / "half.pt").write_bytes((tmp_path / "whole.pt").read_bytes()[:500])
    with zipfile.ZipFile(tmp_path / "whole.pt") as archive, zipfile.ZipFile(tmp_path / "packed.pt", "w", 8) as packed:
        for name in archive.namelist():
            packed.writestr(name, archive.read(name))
    messages = {
        "module.pt": "cannot be read as a state dict of tensors and nothing else; save it anew with",
        "two.pt": "but holds several ('state_dict', 'model')",
        "list.pt": "but holds none",
        "attack.pt": "cannot be read as a state dict",
        "text.safetensors": "is not a safetensors file",
        "half.pt": "cannot be read as a state dict",
        "packed.pt": "cannot be read as a state dict",
        "absent.pt": "is not there",
        "absent.safetensors": "cannot be read (No such file",
    }
    for name, message in messages.items():
        with pytest.raises(UserError) as raised:
            load_weights(network(), tmp_path / name)
        assert message in str(raised.value), name
        assert "\n" not in str(raised.value)


def test_another_file_is_refused_by_its_hash(tmp_path: Path) -> None:
    torch.save(state(), tmp_path / "w.pt")
    digits = file_sha256(tmp_path / "w.pt")
    for wanted, message in (
        (digits[:8], None),
        (digits[:-1] + ("0" if digits[-1] != "0" else "1"), "its SHA-256 begins with"),
        ("0" * 7, "is not 8 to 64 hexadecimal digits"),
    ):
        if message is None:
            load_weights(network(), tmp_path / "w.pt", sha256=wanted)
        else:
            with pytest.raises(UserError, match=message):
                load_weights(network(), tmp_path / "w.pt", sha256=wanted)
