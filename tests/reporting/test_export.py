"""The folder that an experiment's results are kept in: what lies there, what it says, and what is refused."""

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from creditflow.core import plugins
from creditflow.core.errors import UserError
from creditflow.core.files import fingerprint, write_sealed_json
from creditflow.core.merging import compact_json
from creditflow.core.settings import parse
from creditflow.records.frames import write_frame
from creditflow.records.record import Keys, Metric, read_record, write_record
from creditflow.reporting.collection import long_form, read_frame, read_frames, summarize
from creditflow.reporting.export import export as export_finished
from creditflow.reporting.figure import write_figure
from creditflow.reporting.forms import FIGURE, TABLE, write_seal
from creditflow.workflow.experiments import Experiment
from creditflow.workflow.finished import finished
from creditflow.workflow.loading import load_experiments
from creditflow.workflow.outputs import record_paths
from creditflow.workflow.sources import source_files
from helpers import ROOT, stage

TINY: dict[str, Any] = {
    "description": "two rules, made up",
    "datasets": {"digits": {"source": "digits"}},
    "backbones": ["small_cnn"],
    "rules": ["bp", "frsf"],
    "seeds": [0, 1],
    "threads": 1,
    "pretrain": {"dataset": "digits", "settings": {"epochs": 1, "batch_size": 8, "learning_rate": 0.1}},
    "finetune": {"datasets": ["digits"], "settings": {"epochs": 1, "batch_size": 8, "learning_rate": 0.1}},
    "gradients": ["exact"],
    "attacks": {"fgsm": {"epsilons": [0, 0.1], "images": 20, "batch_size": 20}},
    "tables": {"table1": {}, "figure2": {}},
    "figures": {"figure2": {}},
}


#: (folder, experiment, source of each rule) -> None
Made = Callable[..., None]


def same_source(rule: str) -> str:
    return "aaaa"


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what `made` makes of records whose sources are the same."""
    folder = tmp_path_factory.mktemp("template")
    make(folder, tiny(folder), same_source)
    return folder


@pytest.fixture
def made(template: Path) -> Made:
    """Returns (folder, experiment, source_hash) -> None, which writes records and what stages make of them."""

    def write(folder: Path, experiment: Experiment, source_hash: Callable[[str], str] = same_source) -> None:
        if source_hash is same_source:
            shutil.copytree(template / "results", folder / "results")
        else:
            make(folder, experiment, source_hash)

    return write


def make(folder: Path, experiment: Experiment, source_hash: Callable[[str], str]) -> None:
    """Writes made-up records, and what the reporting stages make of them."""
    results = folder / "results"
    for path in record_paths(experiment, results):
        stage_name, dataset, backbone, rule, *attack = path.relative_to(results / "tiny").parent.parts
        seed = int(path.stem.removeprefix("seed"))
        epsilons = [0.0, 0.1] if stage_name == "attack" else [None]
        correct = np.random.default_rng([seed, len(rule)]).random((len(epsilons), 20)) < 0.8
        name = "robust_accuracy" if attack else "accuracy"
        settings = {"norm": "linf" if attack else "", "seed": seed}
        versions: dict[str, str | None] = {"torch": "2.9", "foolbox": "3.3" if attack else None}
        write_record(
            path,
            Keys("tiny", "classification", dataset, backbone, rule, seed, *(attack or ["clean", "none"])),
            [Metric(name, size, float(row.mean()), 20) for size, row in zip(epsilons, correct, strict=True)],
            {"correct": correct, "example": np.arange(20)},
            settings=settings,
            provenance={
                "creditflow": "0.1",
                "git_commit": "c0ffee-dirty",
                "source_hash": source_hash(rule),
                "config_hash": fingerprint(settings),
                "device": "cpu",
                "threads": 1,
                "container": None,
                "python": "3.11",
                "versions": versions,
            },
            run={
                "started": f"2026-01-0{seed + 1}T00:00:00Z",
                "wall_time_s": 1800.5,
                "host": "secret",
                "processor": "x86_64",
            },
        )
    records = [read_record(path) for path in record_paths(experiment, results)]
    write_frame(results / "tiny/records.parquet", long_form(records), "records", records)
    write_frame(results / "tiny/summary.parquet", summarize(records), "summary", records)
    for name, settings in experiment.keys["tables"].items():
        table, frames = plugins.load("table", name).TABLE, source_files(experiment, results, "table", name)
        caption = " ".join(plugins.docstring("table", name).split())
        table.write(
            read_frames(frames, table.source),
            parse(plugins.settings_class("table", name), settings, name),
            caption,
            results / f"tiny/tables/{name}",
        )
        write_seal(results / f"tiny/tables/{name}", TABLE, {"experiment": "tiny", "table": name}, frames)
    figure = plugins.load("figure", "figure2").FIGURE
    write_figure(
        figure,
        read_frame(results / "tiny/summary.parquet", "summary"),
        plugins.settings_class("figure", "figure2")(),
        results / "tiny/figures/figure2",
    )
    seal_figure(results)


def seal_figure(results: Path) -> None:
    what = {"experiment": "tiny", "figure": "figure2"}
    write_seal(results / "tiny/figures/figure2", FIGURE, what, [results / "tiny/summary.parquet"])


@pytest.fixture
def experiment(tmp_path: Path) -> Experiment:
    return tiny(tmp_path)


def tiny(folder: Path) -> Experiment:
    (folder / "experiments").mkdir()
    (folder / "experiments/tiny.yaml").write_text(yaml.safe_dump(TINY), encoding="utf-8")
    return load_experiments(folder / "experiments")["tiny"]


def export(experiment: Experiment, results: Path, output: Path, *, mixed: bool = False) -> Path:
    return export_finished(finished(experiment, results), output, mixed=mixed)


def test_the_folder_holds_what_is_declared_and_explains_itself(
    made: Made, experiment: Experiment, tmp_path: Path
) -> None:
    made(tmp_path, experiment)
    (tmp_path / "results/tiny/tables/leftover.md").write_text("of a table that is no longer declared", encoding="utf-8")
    (tmp_path / "kept/tiny").mkdir(parents=True)
    (tmp_path / "kept/tiny/old.md").write_text("of an earlier export", encoding="utf-8")
    folder = export(experiment, tmp_path / "results", tmp_path / "kept")
    tables = {f"tables/{name}.{suffix}" for name in ("table1", "figure2") for suffix in ("csv", "md")}
    found = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    assert found == {"README.md", "provenance.json", "figures/figure2.png", "figures/figure2.svg", *tables}
    for name in found - {"README.md", "provenance.json"}:
        assert (folder / name).read_bytes() == (tmp_path / "results/tiny" / name).read_bytes()
    page = (folder / "README.md").read_text(encoding="utf-8")
    for text in (
        "# two rules, made up\n",
        "This is the experiment `tiny`.",
        "make demo results EXPERIMENT=tiny",
        "![figure2](figures/figure2.png)",
        "`-dirty`",
        (folder / "tables/table1.md").read_text(encoding="utf-8").strip(),
        "Robust accuracy against epsilon",
        "8 records, seeds 0, 1",
        "4:00:04",
    ):
        assert text in page
    assert "versions of the sources" not in page
    assert "their sidecars are no longer there" in page
    assert [path.name for path in (tmp_path / "kept").iterdir()] == ["tiny"]


def test_a_table_is_made_again_with_its_settings_in_the_order_in_which_its_stage_got_them(tmp_path: Path) -> None:
    """Columns follow this order, so a table that is as the stage made it would seem to be another one."""
    experiment = load_experiments(ROOT / "config/experiments")["sal_fashion"]
    written = experiment.keys["tables"]["training_measures"]
    again = finished(experiment, tmp_path).tables["training_measures"]
    assert list(again["metrics"]) == list(json.loads(compact_json(written))["metrics"]) != list(written["metrics"])


def test_the_provenance_is_that_of_the_records_without_hosts(
    made: Made, experiment: Experiment, tmp_path: Path
) -> None:
    made(tmp_path, experiment)
    text = (export(experiment, tmp_path / "results", tmp_path) / "provenance.json").read_text(encoding="utf-8")
    assert "secret" not in text
    facts = json.loads(text)
    assert (facts["records"], facts["seeds"], facts["source_hashes"], facts["containers"]) == (
        8,
        [0, 1],
        ["aaaa"],
        [None],
    )
    settings = [{"norm": norm, "seed": seed} for norm in ("", "linf") for seed in (0, 1)]
    assert facts["config_hashes"] == sorted(map(fingerprint, settings))
    assert facts["versions"] == {"torch": ["2.9"], "foolbox": ["3.3", None], "creditflow": ["0.1"], "python": ["3.11"]}
    assert (facts["earliest_start"], facts["latest_start"]) == ("2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z")
    assert facts["wall_time_s"] == pytest.approx(8 * 1800.5)


def test_the_code_of_training_is_told_apart_from_that_of_measuring(
    made: Made, experiment: Experiment, tmp_path: Path
) -> None:
    made(tmp_path, experiment)
    for rule, commit in (("bp", "older"), ("frsf", "newer")):
        path = tmp_path / f"results/tiny/finetune/digits/small_cnn/{rule}/seed0.json"
        write_sealed_json(path, {"provenance": {"git_commit": commit, "source_hash": f"hash of {commit}"}})
    folder = export(experiment, tmp_path / "results", tmp_path)
    facts = json.loads((folder / "provenance.json").read_text(encoding="utf-8"))
    assert facts["trained"] == {
        "trainings": 2,
        "git_commits": ["newer", "older"],
        "source_hashes": ["hash of newer", "hash of older"],
    }
    assert "2 trainings before that: commit newer, older" in (folder / "README.md").read_text(encoding="utf-8")
    write_sealed_json(path, {"rule": "frsf"})
    with pytest.raises(UserError, match=r"frsf/seed0\.json does not say which code trained the model; move it away"):
        export(experiment, tmp_path / "results", tmp_path)


def test_a_large_drawing_is_left_out(made: Made, experiment: Experiment, tmp_path: Path) -> None:
    made(tmp_path, experiment)
    with (tmp_path / "results/tiny/figures/figure2.svg").open("a", encoding="utf-8") as file:
        file.write(" " * 300_000)
    seal_figure(tmp_path / "results")
    folder = export(experiment, tmp_path / "results", tmp_path)
    assert [path.name for path in (folder / "figures").iterdir()] == ["figure2.png"]


def test_records_of_several_sources_are_exported_only_if_one_says_so(
    made: Made, experiment: Experiment, tmp_path: Path
) -> None:
    made(tmp_path, experiment, {"bp": "aaaa", "frsf": "bbbb"}.__getitem__)
    with pytest.raises(
        UserError, match="records of tiny were made by 2 versions of the sources; make them again, or say --mixed"
    ):
        export(experiment, tmp_path / "results", tmp_path / "kept")
    assert not (tmp_path / "kept").exists()
    options = [
        "--experiments",
        tmp_path / "experiments",
        "--results",
        tmp_path / "results",
    ]
    done = stage("export", "--experiment", "tiny", *options, "--output", tmp_path / "kept", "--mixed")
    assert done.returncode == 0, done.stderr
    assert "**the records were made by 2 versions of the sources**" in (tmp_path / "kept/tiny/README.md").read_text(
        encoding="utf-8"
    )


def test_what_is_missing_or_stale_ends_in_one_line_and_leaves_the_folder_alone(
    made: Made, experiment: Experiment, tmp_path: Path
) -> None:
    made(tmp_path, experiment)
    results = tmp_path / "results"
    before = (export(experiment, results, tmp_path / "kept") / "README.md").read_bytes()

    def refused(message: str, one: Experiment = experiment) -> None:
        with pytest.raises(UserError, match=message) as caught:
            export(one, results, tmp_path / "kept")
        assert "\n" not in str(caught.value)
        assert (tmp_path / "kept/tiny/README.md").read_bytes() == before

    def with_keys(**keys: Any) -> Experiment:
        return replace(experiment, keys={**experiment.keys, **keys})

    refused(r"seed2.json and \d+ others missing; run `snakemake --cores all tiny` first", with_keys(seeds=[0, 1, 2]))
    refused(r"records.parquet is not what the records say now; move it away", with_keys(seeds=[0]))
    refused(r"table3.csv and 1 others missing", with_keys(tables={"table1": {}, "table3": {"epsilon": 1}}))
    table = results / "tiny/tables/table1.md"
    content = table.read_text(encoding="utf-8")
    table.write_text(content.replace("BP", "PB"), encoding="utf-8")
    refused("table1.md is not what the records and the experiment say now; move it away and run")
    table.write_text(content, encoding="utf-8")
    figure, summary = results / "tiny/figures/figure2.png", results / "tiny/summary.parquet"
    os.utime(figure, ns=(0, summary.stat().st_mtime_ns - 1))
    refused("figure2.png is older than .*summary.parquet; move it away and run")
    os.utime(summary, (0, 0))
    refused("summary.parquet is older than .*seed.*json; move it away and run")
