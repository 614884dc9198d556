"""Files cut short and bits flipped: whatever is read is what was written, or one line says which file to delete."""

import dataclasses
import random
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from creditflow.compute.checkpoints import load_checkpoint, save_checkpoint
from creditflow.core.errors import UserError
from creditflow.core.files import json_bytes, seal
from creditflow.data.prepared import load_prepared
from creditflow.models.storage import load_feedback, load_model
from creditflow.populations.storage import load_population
from creditflow.records.record import read_record
from creditflow.reporting.collection import read_frame
from creditflow.reporting.forms import check_forms
from creditflow.retrieval.storage import PARTS, Encoded, load_codes, save_codes
from creditflow.workflow import layout
from faults.conftest import Whole, snapshot
from helpers import ROOT

pytestmark = pytest.mark.slow

FLIPS, CUTS = 60, 15


def same(one: Any, other: Any) -> bool:
    if isinstance(one, torch.Tensor):
        return bool(torch.equal(one, other))
    if dataclasses.is_dataclass(one):
        return all(same(getattr(one, field.name), getattr(other, field.name)) for field in dataclasses.fields(one))
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    if hasattr(one, "equals"):
        return bool(one.equals(other))
    return bool((one == other).all()) if hasattr(one, "all") else bool(one == other)


MODEL = "results/cells/finetune/high/small_cnn/brsf/seed0"
RECORD = "results/cells/attack/high/small_cnn/brsf/fgsm/exact/seed0"
POPULATION = "results/many/population/all_digits/natural/pepita"

READERS: dict[str, tuple[str, Callable[[Path], Any]]] = {
    f"{MODEL}.safetensors": (MODEL, lambda base: load_model(base.with_suffix(".safetensors")).state_dict()),
    f"{MODEL}.json": (MODEL, lambda base: load_model(base.with_suffix(".safetensors")).state_dict()),
    f"{MODEL}.feedback.safetensors": (MODEL, lambda base: load_feedback(base.with_suffix(".safetensors"))),
    f"{RECORD}.json": (RECORD, lambda base: read_record(base.with_suffix(".json"))),
    f"{RECORD}.safetensors": (RECORD, lambda base: read_record(base.with_suffix(".json"))),
    f"{POPULATION}.safetensors": (POPULATION, lambda base: load_population(base.with_suffix(".safetensors"))),
    f"{POPULATION}.json": (POPULATION, lambda base: load_population(base.with_suffix(".safetensors"))),
    "results/data/digits/prepared.safetensors": (
        "results/data/digits/prepared.safetensors",
        lambda path: load_prepared(path, "train"),
    ),
    "results/cells/records.parquet": ("results/cells/records.parquet", lambda path: read_frame(path, "records")),
    "results/cells/summary.parquet": ("results/cells/summary.parquet", lambda path: read_frame(path, "summary")),
    "results/cells/audit.parquet": ("results/cells/audit.parquet", lambda path: read_frame(path, "audit")),
} | {
    f"{stem}{suffix}": (stem, lambda base, what=what: check_forms(base, {"experiment": "cells"} | what))
    for stem, suffixes, what in (
        ("results/cells/tables/table1", layout.TABLE, {"table": "table1"}),
        ("results/cells/figures/figure2", layout.FIGURE, {"figure": "figure2"}),
    )
    for suffix in suffixes
}

#: The files of the library that seal what they write, and a file of each kind that they write.
SEALERS = {
    "creditflow/data/prepared.py": ["results/data/digits/prepared.safetensors"],
    "creditflow/models/storage.py": [f"{MODEL}.json"],
    "creditflow/populations/storage.py": [f"{POPULATION}.json"],
    "creditflow/records/record.py": [f"{RECORD}.json"],
    "creditflow/records/frames.py": [f"results/cells/{name}.parquet" for name in ("records", "summary", "audit")],
    "creditflow/reporting/forms.py": ["results/cells/tables/table1.json", "results/cells/figures/figure2.json"],
    "creditflow/retrieval/storage.py": ["codes"],
    "creditflow/reporting/release.py": [],  # a description without the machine's name; test_release.py loads it
    "creditflow/reporting/export_seal.py": [],  # tests/reporting/test_results_page.py damages exports
}
#: What a dataset's source or the publisher of weights vouches for, by checksums; and the toy regression's records.
VERIFIED = {"fetch", "fetch_weights"}


def test_every_kind_of_sealed_file_and_every_rule_of_the_workflow_is_in_the_list(whole: Whole) -> None:
    source = ROOT / "src"
    seals = re.compile(r"files\.(?:seal|write_sealed_json|write_parquet)\(")
    sealers = {
        path.relative_to(source).as_posix()
        for path in source.rglob("*.py")
        if seals.search(path.read_text(encoding="utf-8"))
    }
    assert sealers == SEALERS.keys()
    assert {name for names in SEALERS.values() for name in names} <= {*READERS, "codes"}
    tested = {place.rule for place in layout.PLACES for name in READERS if place.wildcards(Path(name).with_suffix(""))}
    # `encode` has its own test here. The others write models and records, as `finetune` and `attack` do.
    same_kind = {"encode", "pretrain", "import_weights", "import_model", "select_member"}
    same_kind |= {"evaluate", "retrieve", "attack_retrieval", "measure_gradients", "measure_nullspace"}
    assert {place.rule for place in layout.PLACES} == tested | VERIFIED | same_kind
    assert not tested & same_kind
    suffixes = {path.suffix for path in snapshot(whole.folder)} - {""}
    assert suffixes - {".png", ".gz"} <= {Path(name).suffix for name in READERS}


def codes_at(path: Path) -> None:
    parts = {name: Encoded(torch.ones(30, 8, dtype=torch.int8), torch.arange(30)) for name in PARTS}
    save_codes(path, parts, {"model": "a", "data": "b"}, {"rule": "bp", "seed": 0})


def test_damaged_codes_are_noticed(tmp_path: Path) -> None:
    path = tmp_path / "codes.safetensors"
    codes_at(path)
    check_that_damage_is_noticed(path, path, lambda base: load_codes(base, {"model": "a", "data": "b"}))


@pytest.mark.parametrize("name", READERS)
def test_what_is_read_is_what_was_written_or_the_file_is_named(whole: Whole, name: str) -> None:
    base, read = READERS[name]
    check_that_damage_is_noticed(whole.folder / name, whole.folder / base, read)


def check_that_damage_is_noticed(victim: Path, base: Path, read: Callable[[Path], Any]) -> None:
    content, truth, rng, noticed = victim.read_bytes(), read(base), random.Random(victim.name), 0
    damaged = [content[: rng.randrange(len(content))] for _ in range(CUTS)]
    for _ in range(FLIPS):
        flipped = bytearray(content)
        flipped[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
        damaged.append(bytes(flipped))
    try:
        for spoilt in damaged:
            victim.write_bytes(spoilt)
            try:
                found = read(base)
            except UserError as error:
                assert str(base) in str(error) and "\n" not in str(error)
                noticed += 1
            else:
                assert same(found, truth)
    finally:
        victim.write_bytes(content)
    assert noticed >= CUTS


def test_a_spoilt_checkpoint_is_not_gone_on_from(tmp_path: Path) -> None:
    path, rng, said = tmp_path / "job.checkpoint", random.Random(0), list[str]()
    save_checkpoint(path, "me", {"weights": torch.arange(1000.0), "epoch": 3})
    content = path.read_bytes()
    assert load_checkpoint(path, "me", said.append) is not None
    for _ in range(FLIPS):
        flipped = bytearray(content)
        flipped[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
        for spoilt in (bytes(flipped), content[: rng.randrange(len(content))]):
            path.write_bytes(spoilt)
            assert load_checkpoint(path, "me", said.append) is None
    assert len(said) == 2 * FLIPS and all(
        "ignoring the damaged checkpoint" in line and "\n" not in line for line in said
    )


@pytest.mark.parametrize(
    "stage", ["collect", "audit", "plot_figure", "make_table", "select_member", "evaluate", "finetune"]
)
def test_jobs_that_read_a_spoilt_file_say_so_in_one_line(whole: Whole, stage: str) -> None:
    victim = (
        whole.folder
        / {
            "collect": f"{RECORD}.json",
            "audit": f"{RECORD}.safetensors",
            "plot_figure": "results/cells/summary.parquet",
            "make_table": "results/cells/summary.parquet",
            "select_member": f"{POPULATION}.safetensors",
            "evaluate": f"{MODEL}.json",
            "finetune": "results/cells/pretrain/small_cnn/seed0.safetensors",
        }[stage]
    )
    places = (
        {"cells", "brsf"}
        if stage in ("evaluate", "finetune")
        else {"pepita"}
        if stage == "select_member"
        else {"cells"}
    )
    job = next(
        one for one in whole.jobs[stage] if all(place in one.command for place in places) and needs(stage, one.command)
    )
    content = victim.read_bytes()
    place = slice(len(content) // 3, len(content) // 3 + 400)
    victim.write_bytes(content[: place.start] + bytes(byte ^ 0xFF for byte in content[place]) + content[place.stop :])
    try:
        status, said = whole.run(job, forked=True)
    finally:
        victim.write_bytes(content)
    assert status == 2 and "Traceback" not in said
    assert said.strip().splitlines()[-1].startswith("error: ") and victim.stem.partition(".")[0] in said, said
    whole.make_again(job)


def needs(stage: str, command: str) -> bool:
    return stage != "make_table" or "table1" in command


def test_a_record_of_another_version_is_named(whole: Whole) -> None:
    record = whole.folder / f"{RECORD}.json"
    content = record.read_text(encoding="utf-8")
    record.write_bytes(json_bytes(seal({"format": 7, "keys": {}})))
    try:
        status, said = whole.run(next(job for job in whole.jobs["collect"] if "cells" in job.command), forked=True)
    finally:
        record.write_text(content, encoding="utf-8")
    assert status == 2
    assert said.strip().splitlines()[-1] == (
        f"error: {RECORD}.json is a record of format 7, this version reads 1;"
        " move it away and run the same command again"
    )
