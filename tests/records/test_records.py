"""Records: read back as written, refused when damaged."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from creditflow.core.errors import UserError
from creditflow.core.files import json_bytes, seal
from creditflow.records.record import Keys, Metric, read_record, write_record

KEYS = Keys("e", "classification", "d", "b", "frsf", 2, "pgd", "exact")
METRICS = [Metric("robust_accuracy", 0.1, 0.5, 4), Metric("queries_per_image", None, 7.0, 4)]
OUTCOMES = {"correct": np.array([[True, False, True, False]]), "example": np.array([3, 1, 4, 5])}


def sealed(content: dict[str, Any]) -> bytes:
    return json_bytes(seal(content))


def test_a_record_reads_back_as_written_and_twice_the_same_bytes(tmp_path: Path) -> None:
    for name in ("one", "two"):
        write_record(tmp_path / name / "r.json", KEYS, METRICS, OUTCOMES, checks={"a": 1}, run={"host": "x"})
    record = read_record(tmp_path / "one" / "r.json")
    assert record.keys == KEYS
    assert list(record.metrics) == METRICS
    for name, array in OUTCOMES.items():
        np.testing.assert_array_equal(record.outcomes[name], array)
    for suffix in ("json", "safetensors"):
        assert (tmp_path / "one" / f"r.{suffix}").read_bytes() == (tmp_path / "two" / f"r.{suffix}").read_bytes()


def test_a_number_that_is_not_finite_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="Out of range"):
        write_record(tmp_path / "r.json", KEYS, [Metric("m", None, float("nan"), 1)], OUTCOMES)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("victim", "content", "message"),
    [
        ("r.json", b"{", "is not a creditflow record"),
        ("r.json", b"[]", "format None"),
        ("r.json", b'{"format": 99}', "has no seal"),
        ("r.json", sealed({"format": 99}), "format 99"),
        ("r.json", sealed({"format": 1}), "not a whole record"),
        ("r.json", sealed({"format": 1, "keys": {}, "metrics": [], "outcomes": {"file": ""}}), "not a whole record"),
        ("r.safetensors", b"", "damaged"),
        ("r.safetensors", None, "not a whole record"),
    ],
)
def test_damage_is_named(victim: str, content: bytes | None, message: str, tmp_path: Path) -> None:
    write_record(tmp_path / "r.json", KEYS, METRICS, OUTCOMES)
    if content is None:
        (tmp_path / victim).unlink()
    else:
        (tmp_path / victim).write_bytes(content)
    with pytest.raises(UserError, match=message) as caught:
        read_record(tmp_path / "r.json")
    assert "run the same command again" in str(caught.value)
