"""Whole files in the place of others: the stage that reads one says in one line what lies there, and what belongs."""

import json
import os
import re
import shutil
from argparse import Namespace
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from creditflow.core.errors import UserError
from creditflow.core.files import file_sha256, fingerprint, json_bytes, read_json, read_parquet, seal, write_parquet
from creditflow.data.prepared import load_prepared, save_prepared
from creditflow.records.listing import read_records
from creditflow.records.record import read_record
from creditflow.retrieval.protocol import Part
from creditflow.retrieval.storage import PARTS, Encoded, load_codes, save_codes
from creditflow.stages.retrieval import codes_identity, read_codes
from creditflow.workflow.layout import record_keys
from faults.conftest import Whole
from helpers import snakemake, stage

pytestmark = pytest.mark.slow

RESULTS = Path("results/cells")
MODELS = RESULTS / "finetune/high/small_cnn"
EVALUATED = RESULTS / "evaluate/high/small_cnn"
ATTACKED = RESULTS / "attack/high/small_cnn"
POPULATIONS = Path("results/many/population/all_digits/natural")
MEMBER = Path("results/many/member/all_digits/natural")
PREPARED = Path("results/data/digits/prepared.safetensors")


class Places:
    """Puts files in the places of others, and all of them back."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._before: dict[Path, tuple[bytes, int] | None] = {}

    def keep(self, path: Path) -> Path:
        full = self.folder / path
        self._before.setdefault(full, (full.read_bytes(), full.stat().st_mtime_ns) if full.exists() else None)
        return full

    def copy(self, source: Path, target: Path, *suffixes: str) -> None:
        for suffix in suffixes:
            shutil.copyfile(self.folder / source.with_suffix(suffix), self.keep(target.with_suffix(suffix)))

    def edit(self, path: Path, change: Callable[[dict[str, Any]], object], *, sealed: bool = True) -> None:
        full = self.keep(path)
        content = read_json(full, "anything")
        change(content)
        full.write_bytes(json_bytes(seal(content) if sealed else content))

    def put_back(self) -> None:
        for path, before in self._before.items():
            path.unlink(missing_ok=True)
            if before is not None:
                path.write_bytes(before[0])
                os.utime(path, ns=(before[1], before[1]))


@pytest.fixture
def places(whole: Whole) -> Iterator[Places]:
    places = Places(whole.folder)
    try:
        yield places
    finally:
        places.put_back()


def refused(whole: Whole, rule: str, *texts: str, naming: str = "") -> None:
    """Runs the job of a rule whose command has all of `texts`, of seed 0; its last line must have `naming`."""
    jobs = [job for job in whole.jobs[rule] if "--seed 1 " not in job.command]
    job = next(job for job in jobs if all(text in job.command for text in texts))
    before = {path: (whole.folder / path).read_bytes() for path in job.outputs if (whole.folder / path).is_file()}
    status, said = whole.run(job, forked=True)
    assert status == 2 and "Traceback" not in said, said
    line = said.strip().splitlines()[-1]
    assert line.startswith("error: ") and re.search(naming, line), said
    assert before == {path: (whole.folder / path).read_bytes() for path in before}


OTHER_RECORDS = {
    "rule": ((EVALUATED / "bp/seed0", EVALUATED / "brsf/seed0"), "rule bp, .*where that of .*rule brsf, "),
    "gradient": (
        (ATTACKED / "brsf/fgsm/exact/seed0", ATTACKED / "brsf/fgsm/feedback/seed0"),
        "gradient exact, where that of .*gradient feedback",
    ),
    "attack": ((EVALUATED / "bp/seed0", ATTACKED / "bp/fgsm/exact/seed0"), "attack clean, .*attack fgsm, "),
}


@pytest.mark.parametrize("reader", ["collect", "audit"])
@pytest.mark.parametrize("case", OTHER_RECORDS)
def test_a_record_in_the_place_of_another(whole: Whole, places: Places, case: str, reader: str) -> None:
    (source, target), naming = OTHER_RECORDS[case]
    places.copy(source, target, ".json", ".safetensors")
    refused(whole, reader, "cells", naming=f"{target}.json is the record of .*{naming}")


KEYS = {
    "experiment": "another",
    "task": "retrieval",
    "dataset": "low",
    "backbone": "lenet5",
    "rule": "usf",
    "seed": 7,
    "attack": "pgd",
    "gradient": "feedback",
}


@pytest.mark.parametrize("key", KEYS)
def test_each_key_of_a_record_must_be_that_of_its_place(whole: Whole, places: Places, key: str) -> None:
    def change(content: dict[str, Any]) -> None:
        content["keys"][key] = KEYS[key]
        content["settings"].pop(key, None)
        content["provenance"]["config_hash"] = fingerprint(content["settings"])

    record = ATTACKED / "bp/fgsm/exact/seed0.json"
    places.edit(record, change)
    with pytest.raises(UserError, match=f"{key} {KEYS[key]}.*, where that of .*{key} ") as caught:
        read_records([places.folder / record], record_keys)
    assert "\n" not in str(caught.value)


def test_a_record_that_is_named_twice_or_lies_elsewhere_as_well(whole: Whole, tmp_path: Path) -> None:
    path = whole.folder / EVALUATED / "bp/seed0.json"
    for suffix in (".json", ".safetensors"):
        shutil.copyfile(path.with_suffix(suffix), tmp_path / f"seed0{suffix}")
    assert record_keys(tmp_path / "seed0.json") is None
    for other in (tmp_path / "seed0.json", path):
        with pytest.raises(UserError, match=r"are both the record of experiment cells, .*seed 0"):
            read_records([path, other], record_keys)


@pytest.mark.parametrize("reader", ["collect", "audit"])
def test_a_record_whose_seal_fits_but_whose_mean_does_not(whole: Whole, places: Places, reader: str) -> None:
    record = ATTACKED / "bp/fgsm/exact/seed0.json"
    places.edit(record, lambda content: content["metrics"][1].update(value=1.0))
    refused(whole, reader, "cells", naming=f"{record}: its robust_accuracy at epsilon 0.1 is 1.0, its outcomes say 0")


@pytest.mark.parametrize(
    ("path", "rule", "text"),
    [
        (EVALUATED / "bp/seed0.json", "collect", "cells"),
        (MODELS / "brsf/seed0.json", "evaluate", "brsf"),
        (POPULATIONS / "pepita.json", "select_member", "pepita"),
        (RESULTS / "pretrain/small_cnn/seed0.json", "finetune", "brsf"),
    ],
)
def test_a_description_without_its_seal(whole: Whole, places: Places, path: Path, rule: str, text: str) -> None:
    places.edit(path, lambda content: content.update(provenance={"git_commit": "other"}), sealed=False)
    refused(whole, rule, text, naming=f"{path} has no seal")


def parts() -> dict[Part, Encoded]:
    return {name: Encoded(torch.ones(3, 8, dtype=torch.int8), torch.arange(3)) for name in PARTS}


def test_a_prepared_dataset_and_codes_without_their_seal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("creditflow.core.files.seal", lambda value: value)
    images, labels = np.zeros((4, 1, 2, 2), dtype=np.uint8), np.arange(4) % 2
    save_prepared(tmp_path / "p", {"train": (images, labels), "test": (images, labels)}, ["a", "b"])
    save_codes(tmp_path / "c", parts(), {})
    monkeypatch.undo()
    for read in (lambda: load_codes(tmp_path / "c", {}), lambda: load_prepared(tmp_path / "p", "train")):
        with pytest.raises(UserError, match="it has no seal"):
            read()


@pytest.mark.parametrize(("rule", "texts"), [("evaluate", ["cells", "brsf"]), ("attack", ["brsf", "feedback"])])
def test_the_model_of_another_rule(whole: Whole, places: Places, rule: str, texts: list[str]) -> None:
    places.copy(MODELS / "bp/seed0", MODELS / "brsf/seed0", ".json", ".safetensors", ".feedback.safetensors")
    naming = f"{MODELS}/brsf/seed0.json is the model of .*rule bp, seed 0, where that of .*rule brsf, .* is expected"
    refused(whole, rule, *texts, naming=naming)


def test_a_model_of_another_kind_as_the_start_of_fine_tuning(whole: Whole, places: Places) -> None:
    start = RESULTS / "pretrain/small_cnn/seed0"
    places.copy(MODELS / "bp/seed0", start, ".json", ".safetensors", ".feedback.safetensors")
    refused(whole, "finetune", "brsf", naming=f"{start}.json is the model of stage finetune, .*stage pretrain")


@pytest.mark.parametrize("key", ["stage", "experiment", "task", "dataset", "backbone", "rule", "seed"])
def test_each_name_of_a_model_counts(whole: Whole, places: Places, key: str) -> None:
    places.edit(MODELS / "bp/seed0.json", lambda content: content["identity"].update({key: "other"}))
    refused(whole, "evaluate", "cells", "/bp/", naming=f"{key} other.*, where that of ")


def test_a_model_that_says_nothing_of_itself(whole: Whole, places: Places) -> None:
    places.edit(MODELS / "bp/seed0.json", lambda content: content.pop("identity"))
    refused(whole, "evaluate", "cells", "/bp/", naming="seed0.json does not say what it is, .*snakemake .* --force ")


#: Edits of a sidecar whose seal was made again, and what is said of them.
SIDECARS: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "no settings": (lambda content: content.pop("settings"), "does not say how the model was trained"),
    "other settings": (lambda content: content["settings"].update(seed=9), "does not say how the model was trained"),
    "no provenance": (lambda content: content.pop("provenance"), "does not say how the model was trained"),
    "history of texts": (lambda content: content["history"][0].update(train_accuracy="x"), "history .* cannot have"),
    "no history": (lambda content: content.update(history={"a": 1}), "history that training cannot have written"),
    "other network": (lambda content: content["spec"].update(backbone="lenet5"), "seed0.safetensors does not hold the"),
}


@pytest.mark.parametrize("case", SIDECARS)
def test_a_sidecar_that_contradicts_itself(whole: Whole, places: Places, case: str) -> None:
    change, naming = SIDECARS[case]
    places.edit(MODELS / "bp/seed0.json", change)
    refused(whole, "evaluate", "cells", "/bp/", naming=naming)


def test_a_model_that_was_trained_on_other_data(whole: Whole, places: Places) -> None:
    places.edit(MODELS / "bp/seed0.json", lambda content: content["settings"].update(data="another hash"))
    refused(whole, "evaluate", "cells", "/bp/", naming="seed0.safetensors was trained on other data than ")


def test_a_surrogate_must_be_the_one_that_is_expected(whole: Whole, tmp_path: Path) -> None:
    options = ["--attack", "transfer", "--gradient", "surrogate:twin", "--epsilons", "0.1", "--images", "4"]
    done = stage(
        "attack",
        *("--model", MODELS / "brsf/seed0.safetensors", "--data", PREPARED, "--classes", *"56789", *options),
        *("--surrogate", f"twin={MODELS}/brsf/seed0.safetensors"),
        *("--expect-surrogate", 'twin={"rule": "bp", "seed": 0}'),
        *("--record", tmp_path / "r.json"),
        folder=whole.folder,
    )
    assert done.returncode == 2 and re.search("rule brsf, .*where that of rule bp, seed 0 is expected", done.stderr)


def test_by_hand_a_stage_takes_any_model(whole: Whole, tmp_path: Path) -> None:
    where = ["--model", MODELS / "bp/seed0.safetensors", "--data", PREPARED, "--classes", *"56789"]
    done = stage("evaluate", *where, "--record", tmp_path / "r.json", folder=whole.folder)
    assert done.returncode == 0, done.stderr
    assert read_record(tmp_path / "r.json").keys.experiment == "manual"


def test_the_population_of_another_rule(whole: Whole, places: Places) -> None:
    places.copy(POPULATIONS / "bp", POPULATIONS / "pepita", ".json", ".safetensors")
    refused(
        whole, "select_member", "pepita", naming="pepita.json is the population of .*rule bp, where that of .*pepita"
    )


#: What lies in the place of a population's chosen member, and what is said of it.
MEMBERS = {
    "another rule": (MEMBER / "pepita/seed0", "rule pepita, seed 0, where that of .*rule bp, seed 0"),
    "another seed": (MEMBER / "bp/seed1", "rule bp, seed 1, where that of .*rule bp, seed 0"),
    "a fine-tuned network": (MODELS / "bp/seed0", "stage finetune, experiment cells, .*where that of stage select_mem"),
}


@pytest.mark.parametrize("case", MEMBERS)
def test_a_member_in_the_place_of_another(whole: Whole, places: Places, case: str) -> None:
    source, naming = MEMBERS[case]
    places.copy(source, MEMBER / "bp/seed0", ".json", ".safetensors", ".feedback.safetensors")
    refused(whole, "evaluate", "many", "/bp/", naming=f"{MEMBER}/bp/seed0.json is the model of .*{naming}")


@pytest.mark.parametrize(("stage", "texts"), [("finetune", ("bp", "brsf")), ("train_population", ("bp", "pepita"))])
def test_the_checkpoint_of_another_job(whole: Whole, places: Places, stage: str, texts: tuple[str, str]) -> None:
    """It is whole, and for a network of the same shape; the job says so and begins anew, and its result is the same."""
    victim, other = (
        next(job for job in whole.jobs[stage] if "--seed 1 " not in job.command and f"--rule {text} " in job.command)
        for text in texts
    )
    checkpoints = [re.search(r"--checkpoint (\S+)", job.command) for job in (victim, other)]
    mine, theirs = (whole.folder / match[1] for match in checkpoints if match)
    whole.forget(other)
    whole.run(other, crash_at=1, crash_once=theirs)
    theirs.rename(mine)
    whole.forget(victim)
    status, said = whole.run(victim, forked=True)
    assert status == 0 and "belongs to other settings or inputs; starting from the beginning" in said, said
    whole.make_again(other)


@pytest.mark.parametrize("rule", ["pretrain", "finetune", "train_population", "evaluate", "attack"])
def test_the_prepared_form_of_another_dataset(whole: Whole, places: Places, rule: str) -> None:
    images, labels = np.zeros((20, 1, 8, 8), dtype=np.uint8), np.arange(20) % 10
    split = (images, labels)
    save_prepared(places.keep(PREPARED), {"train": split, "test": split}, list("abcdefghij"), dataset="mnist")
    refused(whole, rule, naming=f"{PREPARED} is the prepared form of dataset mnist, where that of dataset digits")


def test_codes_of_another_model(tmp_path: Path) -> None:
    save_codes(tmp_path / "codes", parts(), {"model": "a"}, {"rule": "bp", "seed": 0})
    load_codes(tmp_path / "codes", {"model": "a"}, {"rule": "bp"})
    with pytest.raises(UserError, match="codes is the set of codes of rule bp, seed 0, where that of rule fa"):
        load_codes(tmp_path / "codes", {"model": "a"}, {"rule": "fa"})


def test_a_stage_refuses_codes_of_another_network_even_where_they_follow_from_the_same(tmp_path: Path) -> None:
    def filed(rule: str, seed: int) -> tuple[Namespace, dict[str, Any]]:
        args = Namespace(
            experiment="e", dataset_name="d", seed=seed, codes=tmp_path / "codes", expect_model={"rule": rule}
        )
        return args, {"rule": rule, "seed": seed, "spec": {"backbone": "small_cnn"}}

    source = {"model": "the same", "data": "the same"}
    save_codes(tmp_path / "codes", parts(), source, codes_identity(*filed("fa", 0)))
    read_codes(*filed("fa", 0), source)
    for other in (("bp", 0), ("fa", 1)):
        with pytest.raises(UserError, match=r"is the set of codes of .*rule fa, seed 0, where that of .*rule "):
            read_codes(*filed(*other), source)


@pytest.mark.parametrize(("rule", "frame"), [("make_table", "summary"), ("plot_figure", "summary")])
def test_the_frame_of_another_experiment(whole: Whole, places: Places, rule: str, frame: str) -> None:
    shutil.copyfile(whole.folder / f"results/many/{frame}.parquet", places.keep(RESULTS / f"{frame}.parquet"))
    refused(whole, rule, f"cells/{frame}.parquet", naming="the frame of experiment many, .*that of experiment cells")


def exported(whole: Whole, folder: Path) -> str:
    """Returns what an export says. Other tests have damaged records and put them right; what follows is touched."""
    for pattern in ("*.parquet", "tables/*", "figures/*"):
        for path in (whole.folder / RESULTS).glob(pattern):
            os.utime(path)
    done = stage("export", "--experiment", "cells", "--output", folder, "--mixed", folder=whole.folder)
    assert done.returncode in (0, 2), done.stderr
    assert not done.stderr or done.stderr.count("\n") == 1
    return done.stderr


def test_an_export_refuses_frames_of_other_records(whole: Whole, places: Places, tmp_path: Path) -> None:
    assert exported(whole, tmp_path) == ""
    path = RESULTS / "summary.parquet"
    frame = read_parquet(places.keep(path))
    frame.attrs["identity"]["records"] = "others"
    write_parquet(whole.folder / path, frame)
    assert f"{path} is the frame of " in exported(whole, tmp_path)


def test_an_export_refuses_models_that_were_trained_again(whole: Whole, places: Places, tmp_path: Path) -> None:
    sidecar = MODELS / "bp/seed0.json"
    places.edit(sidecar, lambda content: content["sha256"].update(weights="1" * 64))
    assert f"{sidecar} is not the model that the records of " in exported(whole, tmp_path)
    places.copy(MODELS / "brsf/seed0", MODELS / "bp/seed0", ".json")
    assert "are both the model of stage finetune, experiment cells, " in exported(whole, tmp_path)


@pytest.mark.parametrize(
    "change",
    [
        lambda content: content.pop("provenance"),
        lambda content: content.pop("run"),
        lambda content: content["provenance"].update(versions=["torch"]),
        lambda content: content["provenance"].pop("git_commit"),
    ],
)
def test_an_export_refuses_records_of_unknown_origin(
    whole: Whole, places: Places, change: Callable[[dict[str, Any]], object], tmp_path: Path
) -> None:
    record = EVALUATED / "bp/seed0.json"
    places.edit(record, change)
    assert f"{record} does not say how it was made" in exported(whole, tmp_path)


@pytest.mark.parametrize("reader", ["collect", "audit"])
def test_records_of_a_model_that_was_trained_again_since(whole: Whole, places: Places, reader: str) -> None:
    def change(content: dict[str, Any]) -> None:
        content["settings"]["model"] = "1" * 64
        content["provenance"]["config_hash"] = fingerprint(content["settings"])

    places.edit(EVALUATED / "bp/seed0.json", change)
    refused(whole, reader, "cells", naming="were not measured on the same model")


FORMS = [
    *(f"tables/table1.{suffix}" for suffix in ("csv", "md", "tex", "html", "json")),
    *(f"figures/figure2.{suffix}" for suffix in ("pdf", "svg", "png", "json")),
]


@pytest.mark.parametrize("form", FORMS)
def test_damaged_forms_go_into_no_export_and_no_report(whole: Whole, places: Places, form: str, tmp_path: Path) -> None:
    victim = places.keep(RESULTS / form)
    content = bytearray(victim.read_bytes())
    content[len(content) // 2] ^= 1
    victim.write_bytes(bytes(content))
    refusal = exported(whole, tmp_path / "kept")
    assert refusal.startswith("error: ") and str(RESULTS / form) in refusal
    assert "--force" in refusal or "run " in refusal  # what makes it again
    if victim.suffix in (".html", ".svg"):
        done = snakemake(whole.folder, "--report", str(tmp_path / "report.html"), "--", "cells")
        assert done.returncode == 2 and "Traceback" not in done.stdout, done.stdout
        assert f"{RESULTS / form} is damaged or was edited" in done.stdout.strip().splitlines()[-1]
        assert not (tmp_path / "report.html").exists()


def test_a_figure_of_another_experiment_or_without_its_seal(whole: Whole, places: Places, tmp_path: Path) -> None:
    figure = RESULTS / "figures/figure2.json"
    places.edit(figure, lambda content: content["identity"].update(experiment="another"))
    assert "the seal of experiment another, figure figure2, where that of experiment cells" in exported(whole, tmp_path)
    (whole.folder / figure).unlink()
    assert f"{figure} is missing" in exported(whole, tmp_path)


def test_records_say_on_which_cpu_with_which_instructions_they_were_made(whole: Whole, tmp_path: Path) -> None:
    record = read_record(whole.folder / EVALUATED / "bp/seed0.json").content
    made = record["provenance"]
    assert made["cpu"] == record["run"]["processor"] and made["threads"] == 1
    assert made["instruction_set"] == torch.backends.cpu.get_cpu_capability()
    assert exported(whole, tmp_path) == ""
    facts = json.loads((tmp_path / "cells/provenance.json").read_text(encoding="utf-8"))
    assert (facts["cpus"], facts["instruction_sets"]) == ([made["cpu"]], [made["instruction_set"]])
    page = (tmp_path / "cells/README.md").read_text(encoding="utf-8")
    assert made["cpu"] in page and f"instruction set {made['instruction_set']}" in page


def test_what_a_table_was_made_from_is_in_its_seal(whole: Whole) -> None:
    content = read_json(whole.folder / RESULTS / "tables/table1.json", "a seal")
    assert content["frames"] == [file_sha256(whole.folder / RESULTS / "summary.parquet")]
    assert content["identity"] == {"experiment": "cells", "table": "table1"}
