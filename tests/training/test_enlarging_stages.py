"""The stages, with networks that enlarge their images: a model is trained, measured, and attacked at the small size."""

import json
from pathlib import Path

import pytest

from creditflow.models.storage import read_sidecar
from helpers import TINY_TRAINING, stage

INPUT = '{"upsample": 16, "channels": 3}'


@pytest.mark.slow
def test_the_stages_train_and_measure_networks_that_enlarge_their_images(
    digits: Path, pretrained: Path, tmp_path: Path
) -> None:
    model = tmp_path / "m.safetensors"
    data = ["--data", digits, "--input", INPUT]
    done = stage(
        "finetune", *data, "--backbone", "small_cnn", "--rule", "frsf", "--settings", TINY_TRAINING, "--output", model
    )
    assert done.returncode == 0, done.stderr
    spec = read_sidecar(model)["spec"]
    assert (spec["image_shape"], spec["inner_shape"]) == ([1, 8, 8], [3, 16, 16])
    record = tmp_path / "clean.json"
    done = stage("evaluate", *data, "--model", model, "--record", record)
    assert done.returncode == 0, done.stderr
    content = json.loads(record.read_text(encoding="utf-8"))
    assert next(row["value"] for row in content["metrics"] if row["metric"] == "accuracy") > 0.5
    assert content["settings"]["input"]["upsample"] == 16
    other = ["--data", digits, "--input", '{"upsample": 24, "channels": 3}', "--model", model, "--record", record]
    done = stage("evaluate", *other)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "give the upsample that it was trained with" in done.stderr
    # A pretrained model that takes other images than those that it would be given.
    done = stage(
        "finetune", *data, "--pretrained", pretrained, "--rule", "bp", "--settings", TINY_TRAINING, "--output", model
    )
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "takes images (1, 8, 8)" in done.stderr and "gives (3, 16, 16)" in done.stderr
