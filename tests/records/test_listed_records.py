"""Records by a list of their paths, as the stages `collect` and `audit` read them."""

from pathlib import Path

import numpy as np
import pytest

from creditflow.core.errors import UserError
from creditflow.records.listing import read_listed, read_records
from creditflow.records.record import Keys, Metric, write_record
from creditflow.reporting.collection import read_frame
from helpers import stage


def made_up(folder: Path, n_seeds: int, **settings: object) -> list[Path]:
    """Writes a record for each seed of a model of the same name."""
    paths = [folder / f"seed{seed}.json" for seed in range(n_seeds)]
    for seed, path in enumerate(paths):
        keys = Keys("tiny", "classification", "digits", "lenet5", "bp", seed, "clean", "none")
        outcomes = {"correct": np.array([[True, False]]), "example": np.arange(2)}
        facts = {"settings": settings, "checks": {}, "provenance": {}, "run": {}}
        write_record(path, keys, [Metric("accuracy", None, 0.5, 2)], outcomes, **facts)
    return paths


def test_a_list_names_the_records_in_its_order(tmp_path: Path) -> None:
    paths = made_up(tmp_path, 3)[::-1]
    (tmp_path / "list.txt").write_text("\n".join(map(str, paths)) + "\n\n", encoding="utf-8")
    assert [record.path for record in read_listed(tmp_path / "list.txt")] == paths


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "names no record; write one path on each line"),
        (b"\n \n", "names no record"),
        (b"\xff\xfe\x00", "is not a list of records"),
        (b"nowhere.json\n", "nowhere.json"),
    ],
)
def test_what_is_no_list_of_records_is_explained(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "list.txt").write_bytes(content)
    with pytest.raises(UserError, match=message) as caught:
        read_listed(tmp_path / "list.txt")
    assert "\n" not in str(caught.value)


def test_paths_are_read_as_people_write_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    paths = made_up(tmp_path, 3)
    text = "\ufeff~/seed0.json \r\n\t$HOME/seed1.json\r\n${HOME}/seed2.json"
    (tmp_path / "list.txt").write_text(text, encoding="utf-8", newline="")
    assert [record.path for record in read_listed(tmp_path / "list.txt")] == paths


@pytest.mark.parametrize(("key", "value"), [("model", "a" * 64), ("model", {"weights": "a" * 64}), ("data", "a" * 64)])
def test_records_of_one_network_were_measured_on_the_same_model_and_data(
    tmp_path: Path, key: str, value: object
) -> None:
    before, after = tmp_path / "before", tmp_path / "after"
    (first,) = made_up(before, 1, **{key: value})
    attacked = write_attack(after / "fgsm.json", {key: "b" * 64})
    with pytest.raises(UserError, match=rf"were not measured on the same {key} \(SHA-256 a{{12}} and b{{12}}\)"):
        read_records([first, attacked])
    read_records([first, write_attack(after / "fgsm.json", {key: "a" * 64})])


def write_attack(path: Path, settings: dict[str, object]) -> Path:
    keys = Keys("tiny", "classification", "digits", "lenet5", "bp", 0, "fgsm", "exact")
    outcomes = {"correct": np.array([[True, False]]), "example": np.arange(2)}
    write_record(path, keys, [Metric("robust_accuracy", 0.1, 0.5, 2)], outcomes, settings=settings)
    return path


def test_collecting_reads_what_the_list_names_and_no_experiment(tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text("\n".join(map(str, made_up(tmp_path, 3)[:2])), encoding="utf-8")
    frames = ["--records", tmp_path / "records.parquet", "--summary", tmp_path / "summary.parquet"]
    done = stage("collect", "--records-list", tmp_path / "list.txt", *frames, folder=tmp_path)
    assert (done.returncode, done.stdout) == (0, "2 records\n"), done.stderr
    assert list(read_frame(tmp_path / "records.parquet", "records").seed) == [0, 1]
    done = stage("collect", "--records-list", tmp_path / "none.txt", *frames, folder=tmp_path)
    assert done.returncode == 2 and done.stderr.startswith("error: ") and done.stderr.count("\n") == 1
