"""Readers of bytes from outside, fed with anything: what they return is whole, and what they raise is documented."""

import argparse
import hashlib
import json
import pickle
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import save as dump_arrays

from creditflow.compute.checkpoints import load_checkpoint
from creditflow.core.errors import UserError
from creditflow.core.files import seal
from creditflow.data.formats.idx import read_idx
from creditflow.data.prepared import load_prepared
from creditflow.models.storage import load_feedback, load_model
from creditflow.populations.storage import load_population
from creditflow.records.record import read_record
from creditflow.reporting.collection import read_frame
from creditflow.reporting.published import read_published
from creditflow.reporting.results_page import results_page
from creditflow.retrieval.storage import load_codes
from creditflow.stages.command_line import json_object
from creditflow.workflow.loading import load_experiment

often = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])

scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=8),
    st.sampled_from(["small_cnn", "bp", "0" * 64, "accuracy"]),
)
values = st.recursive(
    scalars,
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=6), inner, max_size=4)),
)


def refused(read: Callable[[], Any]) -> bool:
    """Runs a reader; the only exception it may raise is UserError, in one line."""
    try:
        read()
    except UserError as error:
        assert "\n" not in str(error) and str(error)
        return True
    return False


RECORD = {
    "format": 1,
    "keys": dict.fromkeys(("experiment", "task", "dataset", "backbone", "rule", "attack", "gradient"), "a")
    | {"seed": 0},
    "metrics": [{"metric": "accuracy", "epsilon": None, "value": 0.5, "n": 2}],
    "outcomes": {"file": "r.safetensors", "sha256": "0"},
}
SIDECAR = {"format": 1, "spec": {"backbone": "small_cnn"}, "rule": "bp", "sha256": {"weights": "0", "feedback": "0"}}
POPULATION = {
    "format": 1,
    "rule": "bp",
    "spec": {},
    "members": [{"seed": 0}],
    "measured_images": {},
    "settings": {"settings": {}},
    "sha256": "0",
}

READERS: dict[str, Callable[[Path], Any]] = {
    "record": read_record,
    "sidecar": lambda path: load_model(path.with_suffix(".safetensors")),
    "feedback": lambda path: load_feedback(path.with_suffix(".safetensors")),
    "population": lambda path: load_population(path.with_suffix(".safetensors")),
}


@pytest.mark.parametrize("kind", READERS)
@often
@given(data=st.data())
def test_json_files_with_anything_in_them(kind: str, data: st.DataObject) -> None:
    start = {"record": RECORD, "sidecar": SIDECAR, "feedback": SIDECAR, "population": POPULATION}[kind]
    content: Any = json.loads(json.dumps(start))
    for _ in range(data.draw(st.integers(1, 3))):
        place = content
        while isinstance(place, dict) and place and data.draw(st.booleans()):
            place = place[data.draw(st.sampled_from(sorted(place)))]
        if isinstance(place, dict) and place:
            place[data.draw(st.sampled_from(sorted(place)))] = data.draw(values)
        else:
            content = data.draw(values)
    if isinstance(content, dict) and data.draw(st.booleans()):
        content = seal({key: value for key, value in content.items() if key != "seal"})
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "r.json"
        path.write_text(json.dumps(content))
        path.with_suffix(".safetensors").write_bytes(dump_arrays({"correct": np.zeros((1, 2), bool)}))
        assert refused(lambda: READERS[kind](path))


BYTES: dict[str, Callable[[Path], Any]] = {
    "record": read_record,
    "model": load_model,
    "population": load_population,
    "prepared": lambda path: load_prepared(path, "train"),
    "codes": lambda path: load_codes(path, {}),
    "frame": lambda path: read_frame(path, "records"),
    "published": read_published,
    "idx": read_idx,
    "experiments": lambda path: load_experiment(path.parent, "mine"),
    "page": lambda path: results_page(path.parent),
}
NAMES = {"experiments": "mine.yaml", "page": "claims.yaml", "model": "m.safetensors", "population": "m.safetensors"}


@pytest.mark.parametrize("kind", BYTES)
@often
@given(
    content=st.one_of(
        st.binary(max_size=200), st.text(max_size=80).map(str.encode), values.map(lambda one: json.dumps(one).encode())
    )
)
def test_files_of_anything(kind: str, content: bytes) -> None:
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / NAMES.get(kind, "file")
        path.write_bytes(content)
        if path.suffix == ".safetensors":
            path.with_suffix(".json").write_bytes(content)
        refused(lambda: BYTES[kind](path))


@often
@given(
    facts=values, dtype=st.sampled_from(["uint8", "int64", "float32"]), shape=st.lists(st.integers(0, 3), max_size=4)
)
def test_safetensors_of_anything(facts: Any, dtype: str, shape: list[int]) -> None:
    arrays = {name: np.zeros(shape, dtype) for name in ("train_images", "train_labels", "query_codes", "query_labels")}
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "file"
        path.write_bytes(dump_arrays(arrays, metadata={"creditflow": json.dumps(facts)}))
        assert refused(lambda: load_prepared(path, "train"))
        assert refused(lambda: load_codes(path, {}))


@often
@given(
    frame=st.dictionaries(st.text(max_size=5), st.lists(st.integers(), min_size=2, max_size=2), max_size=3),
    kind=st.sampled_from(["records", "summary", "audit"]),
)
def test_tables_of_anything(frame: dict[str, list[int]], kind: str) -> None:
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "t.parquet"
        try:
            pd.DataFrame(frame).to_parquet(path)
        except (OverflowError, ValueError):
            return
        assert refused(lambda: read_frame(path, kind))


@often
@given(text=st.one_of(st.text(max_size=30), values.map(json.dumps)))
def test_settings_on_the_command_line(text: str) -> None:
    try:
        assert isinstance(json_object(text), dict)
    except argparse.ArgumentTypeError as error:
        assert "\n" not in str(error)


def test_checkpoints_of_anything(tmp_path: Path) -> None:
    said: list[str] = []
    body = pickle.dumps({"identity": "me", "state": torch.nn.Linear})
    path = tmp_path / "c"
    path.write_bytes(hashlib.sha256(body).digest() + body)
    assert load_checkpoint(path, "me", said.append) is None
    assert len(said) == 1
