"""Checkpoints: they fit one job, and damage is noticed."""

from pathlib import Path

import pytest
import torch

from creditflow.compute.checkpoints import load_checkpoint, save_checkpoint
from creditflow.core import files


@pytest.mark.parametrize(
    "damage", [lambda content: content[:-10], lambda content: content[:100] + b"x" + content[101:], lambda content: b""]
)
def test_a_damaged_or_foreign_checkpoint_is_not_used(
    damage, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:  # type: ignore[no-untyped-def]
    path = tmp_path / "checkpoint"
    save_checkpoint(path, "job", {"epoch": torch.ones(3)})
    assert torch.equal(load_checkpoint(path, "job", files.warn)["epoch"], torch.ones(3))  # type: ignore[index]
    assert load_checkpoint(path, "another job", files.warn) is None
    assert "other settings" in capsys.readouterr().err
    path.write_bytes(damage(path.read_bytes()))
    assert load_checkpoint(path, "job", files.warn) is None
    assert "damaged checkpoint" in capsys.readouterr().err
