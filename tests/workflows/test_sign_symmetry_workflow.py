"""The workflow as a user runs it: from nothing to the report, what is made again and what is not, what stops it."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path

import pandas as pd
import pytest

from creditflow.core.files import read_json
from creditflow.records.record import read_record
from creditflow.workflow.layout import record_keys
from helpers import BEFORE_JOBS, FORKED_FROM, ROOT, project, snakemake

pytestmark = pytest.mark.slow

TINY = """
description: all stages on the digits, in seconds
datasets:
  low: {source: digits, classes: [0, 1, 2, 3, 4]}
  high: {source: digits, classes: [5, 6, 7, 8, 9]}
backbones: [small_cnn]
rules: [bp, brsf]
seeds: [0, 1]
threads: 1
pretrain: {dataset: low, settings: {epochs: 2, batch_size: 32, learning_rate: 2.0e-3}}
finetune:
  datasets: [high]
  settings: {epochs: 2, batch_size: 32, learning_rate: 2.0e-3, head_learning_rate: 2.0e-2, weight_decay: 5.0e-4}
gradients: [exact, feedback, "through:frsf", "through:frsf:2"]
attacks:
  fgsm:
    gradients: [exact, feedback, "through:frsf"]
    epsilons: [0, 0.1]
    images: 40
    batch_size: 20
    keep: 3
    for_gradients: {through: {epsilons: [0.1]}}
  cascade:
    epsilons: [0.1]
    images: 30
    batch_size: 30
    settings: {transfer: {steps: 3}, apgd_scaled: {steps: 5}, square: {queries: 10}}
    gradients: [exact, "through:frsf:2"]
    for_gradients: {"through:frsf:2": {images: 10, settings: {transfer: null, square: null}}}
  boundary: {epsilons: [1.0], images: 8, batch_size: 8, settings: {steps: 20}}
  transfer: {epsilons: [0.1], images: 30, batch_size: 30, settings: {steps: 3}}
audit: {epsilons: [0.1], attacks: [fgsm, cascade, transfer], claim: fgsm}
tables: {audit: {}, table1: {}, table3: {epsilon: 1}, figure2: {}}
figures: {audit: {}, figure2: {}}
"""


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project whose tiny experiment has been run."""
    folder = project(tmp_path_factory.mktemp("project"), tiny=TINY)
    done = snakemake(folder, "tiny")
    assert done.returncode == 0, done.stdout
    return folder


@pytest.fixture
def copy(finished: Path, tmp_path: Path) -> Path:
    """The same, to be spoilt."""
    return Path(shutil.copytree(finished, tmp_path / "copy", symlinks=True, copy_function=shutil.copy2))


@pytest.fixture(scope="module")
def nothing_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project that has no results; tests write its experiment."""
    return project(tmp_path_factory.mktemp("nothing_run"), tiny=TINY)


def planned(folder: Path, *arguments: str) -> set[str]:
    """Names of the rules that a dry-run would run, without targets."""
    return rules_of(plan(folder, *arguments))


def plan(folder: Path, *arguments: str) -> str:
    done = snakemake(folder, "-n", "--quiet", "host", "--", *arguments)
    assert done.returncode == 0, done.stdout
    return done.stdout


def rules_of(jobs: str) -> set[str]:
    return set(re.findall(r"^(?:local)?rule (\w+):$", jobs, re.MULTILINE)) - {"all", "tiny"}


def edit(folder: Path, old: str, new: str) -> None:
    path = folder / "config/experiments/tiny.yaml"
    assert old in path.read_text(encoding="utf-8")
    path.write_text(path.read_text(encoding="utf-8").replace(old, new), encoding="utf-8")


def test_everything_that_was_promised_is_there(finished: Path) -> None:
    results = finished / "results/tiny"
    for name in ("audit", "table1", "table3", "figure2"):
        for suffix in ("csv", "md", "tex", "html"):
            assert (results / f"tables/{name}.{suffix}").stat().st_size > 50
    for suffix in ("pdf", "svg", "png"):
        for name in ("audit", "figure2"):
            assert (results / f"figures/{name}.{suffix}").stat().st_size > 5000
    frame = pd.read_parquet(results / "records.parquet")
    assert set(frame.experiment) == {"tiny"}
    # Clean; three numbers after each of two epochs; FGSM with two epsilons, queries and zero gradients, through fresh
    # feedback weights with one epsilon, through the network's own for brSF only; two cascades; Boundary; two transfers.
    assert len(frame) == 2 * (2 * (1 + 3 * 2 + 4 + 3 + 2 * 3 + 3 + 2 * 2) + 4)
    audited = pd.read_parquet(results / "audit.parquet")
    assert set(zip(audited.rule, audited.n_images, audited.n_seeds, strict=True)) == {("bp", 30, 2), ("brsf", 30, 2)}
    attacks, models = results / "attack/high/small_cnn", results / "finetune/high/small_cnn"
    for rule, twin in (("brsf", "bp"), ("bp", "brsf")):
        for seed, other in ((0, 1), (1, 0)):
            hashes = {
                "twin": read_json(models / f"{twin}/seed{seed}.json", "a sidecar")["sha256"],
                "other_seed": read_json(models / f"bp/seed{other}.json", "a sidecar")["sha256"],
            }
            for name, expected in hashes.items():
                record = read_record(attacks / f"{rule}/transfer/surrogate-{name}/seed{seed}.json")
                assert (record.keys.gradient, record.content["settings"]["surrogates"]) == (
                    f"surrogate:{name}",
                    {name: expected},
                )
            record = read_record(attacks / f"{rule}/cascade/exact/seed{seed}.json")
            assert record.content["settings"]["surrogates"] == hashes and "unconverged" in record.content["checks"]
            record = read_record(attacks / f"{rule}/cascade/through-frsf-2/seed{seed}.json")
            assert record.keys.gradient == "through:frsf:2" and record.outcomes["correct"].shape == (1, 10)
            assert record.content["settings"]["through"] == {"rule": "frsf", "draw": 2}
    assert not (attacks / "bp/fgsm/feedback").exists() and (attacks / "brsf/fgsm/feedback").exists()
    assert record_keys(attacks / "bp/cascade/through-frsf-2/seed1.json") == asdict(record.keys)
    assert not (results / "checkpoints").exists() or not any(
        path.is_file() for path in (results / "checkpoints").rglob("*")
    )
    assert not list(finished.glob("results/**/.*.part"))
    for path in results.glob("attack/**/seed*.json"):
        record = read_record(path)
        provenance = record.content["provenance"]
        assert re.fullmatch(r"[0-9a-f]{16}", provenance["config_hash"])
        assert provenance["versions"]["torch"]
        assert {"host", "wall_time_s", "peak_memory_mib", "started"} <= record.content["run"].keys()


def test_a_second_run_does_nothing(finished: Path) -> None:
    assert planned(finished, "tiny") == set()


#: Jobs of the second run that are an interpreter of their own, in Bash's patterns: one of each kind.
ALONE = (
    "src/finetune.py *",
    "src/attack.py --model */brsf/seed0.safetensors *--attack cascade --gradient exact *",
    "src/plot_figure.py *--figure figure2 *",
)


def test_two_runs_write_the_same_bytes_but_for_time_and_host(
    finished: Path, copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A model, its records and all that is made of records, made again; three stages as interpreters of their own."""
    patterns = ("*/high/small_cnn/brsf/**/seed0.*", "*.parquet", "tables/*", "figures/*")
    again = [
        path for pattern in patterns for path in (finished / "results/tiny").glob(pattern) if "logs" not in path.parts
    ]
    for path in again:
        (copy / path.relative_to(finished)).unlink()
    cases = "|".join(pattern.replace(" ", "\\ ") for pattern in ALONE)
    unforked = f'case "$*" in {cases}) echo "$1" >> alone.txt; command python "$@"; return ;; esac;'
    monkeypatch.setenv(BEFORE_JOBS, unforked)
    done = snakemake(copy, "tiny")
    assert done.returncode == 0, done.stdout
    assert sorted((copy / "alone.txt").read_text(encoding="utf-8").split()) == sorted(one.split()[0] for one in ALONE)
    for path in again:
        twin = copy / path.relative_to(finished)
        if path.suffix == ".json" and path.parent.name not in ("tables", "figures"):
            one, two = (json.loads(file.read_text(encoding="utf-8")) for file in (path, twin))
            assert one.pop("run").keys() == two.pop("run").keys()
            assert one.pop("seal") != two.pop("seal")
            assert one == two, path
        else:
            assert path.read_bytes() == twin.read_bytes(), path
    assert {"finetune", "evaluate", "attack", "tables", "figures"} <= {
        path.relative_to(finished).parts[2] for path in again
    }


EVERY_ATTACK = {"fgsm", "cascade", "boundary", "transfer"}

AFTERWARDS = {"audit", "collect", "make_table", "plot_figure"}


@pytest.mark.parametrize(
    ("old", "new", "rules", "attacks"),
    [
        ("steps: 20", "steps: 21", {"attack"}, {"boundary"}),
        ("epsilons: [0, 0.1]", "epsilons: [0.05, 0.1]", {"attack"}, {"fgsm"}),
        ("attacks: [fgsm, cascade, transfer]", "attacks: [fgsm, cascade]", {"audit"}, set()),
        ("keep: 3", "keep: 4", {"attack"}, {"fgsm"}),
        ("through: {epsilons: [0.1]}", "through: {epsilons: [0.2]}", {"attack"}, {"fgsm"}),
        ("table3: {epsilon: 1}", "table3: {epsilon: 1.0}", {"make_table"}, set()),
        ("threads: 1", "threads: 2", {"pretrain", "finetune", "evaluate", "attack"}, EVERY_ATTACK),
        (
            "weight_decay: 5.0e-4",
            "weight_decay: 6.0e-4",
            {"finetune", "evaluate", "attack"},
            EVERY_ATTACK,
        ),
    ],
)
def test_touching_a_key_makes_only_what_depends_on_it(
    copy: Path, old: str, new: str, rules: set[str], attacks: set[str]
) -> None:
    edit(copy, old, new)
    jobs = plan(copy, "tiny")
    again = rules_of(jobs)
    only = {"make_table": {"make_table"}, "audit": {"audit", "make_table", "plot_figure"}}
    assert again == (only[next(iter(rules))] if len(rules) == 1 and rules <= only.keys() else rules | AFTERWARDS)
    assert set(re.findall(r"wildcards: .*attack=(\w+)", jobs)) == attacks


def test_one_figure_is_made_from_cached_records_alone(copy: Path) -> None:
    target = "results/tiny/figures/figure2.pdf"
    before = (copy / target).read_bytes()
    for path in (copy / "results/tiny/figures").iterdir():
        path.unlink()
    assert planned(copy, target) == {"plot_figure"}
    done = snakemake(copy, target)
    assert done.returncode == 0, done.stdout
    assert (copy / target).read_bytes() == before


@pytest.mark.parametrize(
    ("file", "expected"),
    [
        ("attacks/methods/boundary.py", {"attack"} | AFTERWARDS),
        ("attacks/methods/pgd.py", {"attack"} | AFTERWARDS),  # transfer builds on it
        ("verdict/statistics.py", AFTERWARDS),
        ("stages/measuring.py", {"evaluate", "attack"} | AFTERWARDS),
        ("training/loop.py", {"pretrain", "finetune", "evaluate", "attack"} | AFTERWARDS),
        ("feedback/rule.py", {"pretrain", "finetune", "evaluate", "attack"} | AFTERWARDS),
        ("reporting/table.py", {"make_table", "plot_figure"}),
        ("reporting/figures/figure2.py", {"plot_figure"}),
    ],
)
def test_editing_a_library_file_makes_again_what_it_computes(copy: Path, file: str, expected: set[str]) -> None:
    path = copy / "src/creditflow" / file
    path.write_text(path.read_text(encoding="utf-8") + "\n# an edit\n", encoding="utf-8")
    assert planned(copy, "tiny") == expected


def jobs_after_editing(copy: Path, rule: str) -> list[tuple[str, dict[str, str]]]:
    """Returns the rule and the wildcards of each job of a model that runs again once a rule's file has changed."""
    path = copy / f"src/creditflow/feedback/rules/{rule}.py"
    path.write_text(path.read_text(encoding="utf-8") + "\n# an edit\n", encoding="utf-8")
    done = snakemake(copy, "-n", "--quiet", "host", "--", "tiny")
    jobs = re.findall(r"^(?:local)?rule (\w+):\n(?:    .*\n)*?    wildcards: (.*)$", done.stdout, re.MULTILINE)
    return [
        (name, dict(pair.split("=") for pair in wildcards.split(", ")))
        for name, wildcards in jobs
        if "rule=" in wildcards
    ]


def test_editing_one_rule_leaves_the_others_alone(copy: Path) -> None:
    jobs = jobs_after_editing(copy, "brsf")
    assert {wildcards["rule"] for name, wildcards in jobs if name in ("finetune", "evaluate")} == {"brsf"}
    of_bp = {(wildcards["attack"], wildcards["gradient"]) for _, wildcards in jobs if wildcards["rule"] == "bp"}
    assert of_bp == {("transfer", "surrogate-twin"), ("cascade", "exact")}  # whose images are made on its brSF twin


def test_editing_a_rule_that_trains_nothing_repeats_the_attacks_through_it(copy: Path) -> None:
    jobs = jobs_after_editing(copy, "frsf")
    assert {name for name, _ in jobs} == {"attack"}
    assert {wildcards["gradient"] for _, wildcards in jobs} == {"through-frsf", "through-frsf-2"}
    assert len(jobs) == 2 * 2 * 2


WHY = """
why: {gradients: [exact, feedback], rules: [brsf], seeds: [0], epsilon: 0.1, images: 8, batch_size: 8, steps: [1, 2]}
audit:"""


def test_networks_matched_in_accuracy_and_measured_gradients(copy: Path) -> None:
    """What jobs are told; test_matched.py and test_why.py run the two stages."""
    edit(copy, "datasets: [high]\n", "datasets: [high]\n  matched: [brsf]\n")
    edit(copy, "\naudit:", WHY)
    done = snakemake(copy, "-n", "-p", "--quiet", "host", "--", "tiny")
    assert done.returncode == 0, done.stdout
    job = r"^rule (\w+):\n    input: (.*)\n(?:    .*\n)*?    wildcards: (.*)\n(?:    .*\n)*Shell command: (.*)$"
    jobs = re.findall(job, done.stdout, re.MULTILINE)
    told = [
        (name, dict(pair.split("=") for pair in wildcards.split(", ")), inputs, command)
        for name, inputs, wildcards, command in jobs
        if "rule=" in wildcards
    ]
    assert {(name, given["rule"]) for name, given, _, _ in told} == {
        *((name, "bp_matched_brsf") for name in ("finetune", "evaluate", "attack")),
        ("measure_gradients", "brsf"),
    }
    finetunings = {given["seed"]: (inputs, command) for name, given, inputs, command in told if name == "finetune"}
    assert finetunings.keys() == {"0", "1"}
    for seed, (inputs, command) in finetunings.items():
        record = f"results/tiny/evaluate/high/small_cnn/brsf/seed{seed}.json"
        assert record in inputs.split(", ")
        assert f"--rule bp_matched_brsf --match={record} " in command
    measured = {given["gradient"]: command for name, given, _, command in told if name == "measure_gradients"}
    assert measured.keys() == {"exact", "feedback"}
    expected = {"batch_size": 8, "epsilon": 0.1, "images": 8, "steps": [1, 2]}
    assert f"--gradient feedback --settings '{json.dumps(expected)}'" in measured["feedback"]


def test_prefetch_leaves_nothing_to_fetch(tmp_path: Path) -> None:
    folder = project(tmp_path, tiny=TINY)
    for path in (folder / "config/experiments").glob("quick*.yaml"):
        path.unlink()
    configuration = folder / "config/config.yaml"
    configuration.write_text(
        configuration.read_text(encoding="utf-8").replace("default_experiment: quick", "default_experiment: tiny"),
        encoding="utf-8",
    )
    assert "fetch" in planned(folder, "tiny")
    done = snakemake(folder, "prefetch")
    assert done.returncode == 0, done.stdout
    assert not {"fetch", "prefetch"} & planned(folder, "tiny")
    assert "Nothing to be done" in snakemake(folder, "-n", "prefetch_tiny").stdout


def test_the_report_holds_tables_figures_and_captions(finished: Path) -> None:
    done = snakemake(finished, "--report", "report.html", "tiny")
    assert done.returncode == 0, done.stdout
    text = (finished / "report.html").read_text(encoding="utf-8")
    for part in ("figure2", "table1", "table3", "Robust accuracy against epsilon", "Clean accuracy in percent"):
        assert part in text
    assert 'var metadata = {"": []};' in text  # else it opens on the graph, or shows the settings of docutils


def test_lint_is_clean() -> None:
    done = snakemake(ROOT, "--lint")
    assert done.returncode == 0
    assert "Congratulations" in done.stdout


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("[bp, brsf]", "[bp, brfs]", "tiny.yaml: rules: unknown rule 'brfs'; did you mean 'brsf'"),
        ("[0, 0.1]", "[0, -0.1]", "tiny.yaml: attacks.fgsm.epsilons.1 must be at least 0, not -0.1"),
        ("[0, 0.1]", "[]", "tiny.yaml: attacks.fgsm.epsilons must be a list of at least 1, not []"),
        ("epochs: 2", "epoch: 2", "unknown key 'epoch'; did you mean 'epochs'"),
        (
            "settings: {steps: 20}",
            "settings: {stepps: 20}",
            "tiny.yaml: attacks.boundary.settings: unknown key 'stepps'; did you mean 'steps'?",
        ),
        ("table3: {epsilon: 1}", "table3: {epsilo: 1}", "tiny.yaml: tables.table3: unknown key 'epsilo'; did you mean"),
        ("seeds: [0, 1]", "seeds: [0, 010]", "tiny.yaml: line 8, column 12: '010' is in base 8 in YAML 1.1"),
        ("threads: 1", "threads: 1\nthreads: 2", "tiny.yaml: line 10, column 1: the key 'threads' stands twice"),
    ],
)
def test_a_mistake_in_an_experiment_ends_before_any_job_in_one_line(
    nothing_run: Path, old: str, new: str, message: str
) -> None:
    folder = nothing_run
    (folder / "config/experiments/tiny.yaml").write_text(TINY.replace(old, new), encoding="utf-8")
    done = snakemake(folder, "tiny")
    assert done.returncode == 2
    errors = [line for line in done.stdout.splitlines() if not line.startswith("Using workflow specific profile")]
    assert len(errors) == 1, done.stdout
    assert errors[0].startswith("error: ")
    assert message in errors[0]
    assert not (folder / "results").exists()


def test_a_broken_experiment_stops_only_who_asks_for_it(tmp_path: Path) -> None:
    folder = project(tmp_path, tiny=TINY, mine=TINY.replace("steps: 20", "stepps: 20"))
    (folder / "config/experiments/.#mine.yaml").symlink_to("nobody@nowhere")
    mistake = "config/experiments/mine.yaml: attacks.boundary.settings: unknown key 'stepps'; did you mean 'steps'?"
    others = snakemake(folder, "-n", "tiny")
    assert others.returncode == 0, others.stdout
    assert others.stdout.count(f"warning: {mistake}; the other experiments are not affected\n") == 1
    for target in ("mine", "prefetch_mine", "results/mine/tables/table1.csv"):
        asked = snakemake(folder, "-n", target)
        assert asked.returncode == 2, asked.stdout
        assert asked.stdout.splitlines()[-1] == f"error: {mistake}"
        assert asked.stdout.count("stepps") == 1


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("tinny", "did you mean 'tiny'"),
        ("results/tinny/figures/figure2.pdf", "unknown experiment 'tinny'; did you mean 'tiny'"),
    ],
)
def test_a_target_that_no_experiment_makes(finished: Path, target: str, message: str) -> None:
    done = snakemake(finished, target)
    assert done.returncode == 2
    assert done.stdout.count("error: ") == 1
    assert message in done.stdout


def test_a_mistake_found_by_a_job_is_shown_and_leaves_nothing_half_written(copy: Path) -> None:
    edit(copy, "boundary: {epsilons: [1.0], images: 8,", "boundary: {epsilons: [1.0], images: 100000,")
    done = snakemake(copy, "tiny")
    assert done.returncode != 0
    assert "error: 100000 images to attack, but the test split has " in done.stdout
    assert not list(copy.glob("results/tiny/attack/**/boundary/**/*.part"))
    assert "attack" in planned(copy, "tiny")


def test_a_truncated_archive_is_named_and_nothing_is_kept(tmp_path: Path) -> None:
    folder = project(tmp_path, tiny=TINY)
    (folder / "archives").mkdir()
    (folder / "archives/digits.csv.gz").write_bytes(b"\x1f\x8b\x08 cut")
    config = folder / "config/config.yaml"
    config.write_text(
        config.read_text(encoding="utf-8").replace("/usr/share/datasets/fashion-mnist", "archives"), encoding="utf-8"
    )
    done = snakemake(folder, "tiny")
    assert done.returncode != 0
    assert "error: digits: archives/digits.csv.gz is truncated or corrupt" in done.stdout
    assert not (folder / "results/data/digits").exists() or not list((folder / "results/data/digits").iterdir())


def test_a_damaged_model_is_named_by_the_job_that_reads_it(copy: Path) -> None:
    model = copy / "results/tiny/finetune/high/small_cnn/brsf/seed1.safetensors"
    model.write_bytes(model.read_bytes()[:-100])
    done = snakemake(copy, "--rerun-triggers", "mtime", "--", "tiny")
    assert done.returncode != 0
    assert "seed1.safetensors is damaged or not the file that its sidecar describes" in done.stdout


LONG = "results/tiny/evaluate/high/small_cnn/brsf/seed0.json"
MODEL = "results/tiny/finetune/high/small_cnn/brsf/seed0.safetensors"
LOG = "results/tiny/logs/finetune/high/small_cnn/brsf/seed0.log"


def trains_longer(finished: Path, folder: Path) -> Path:
    """A copy whose fine-tuning takes eight epochs."""
    shutil.copytree(finished, folder, symlinks=True, copy_function=shutil.copy2)
    edit(folder, "weight_decay: 5.0e-4", "weight_decay: 4.0e-4")
    edit(folder, "\n  settings: {epochs: 2,", "\n  settings: {epochs: 8,")
    return folder


@pytest.fixture(scope="module")
def undisturbed(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A longer fine-tuning that nothing interrupts, and what a second Snakemake says while it has not ended."""
    folder = trains_longer(finished, tmp_path_factory.mktemp("longer") / "copy")
    with pytest.MonkeyPatch.context() as patch, ThreadPoolExecutor() as pool:
        patch.setenv(BEFORE_JOBS, "touch begun; until [ -e go ]; do sleep 0.02; done;")
        first = pool.submit(snakemake, folder, LONG)
        try:
            while not (folder / "begun").exists():
                assert not first.done(), first.result().stdout
                time.sleep(0.02)
            patch.delenv(BEFORE_JOBS)
            second = snakemake(folder, LONG)
            assert second.returncode != 0 and not first.done()
        finally:
            (folder / "go").touch()
    assert first.result().returncode == 0, first.result().stdout
    assert "epoch 1:" in (folder / LOG).read_text(encoding="utf-8")
    return folder, second.stdout


def test_two_snakemakes_do_not_share_a_folder(undisturbed: tuple[Path, str]) -> None:
    folder, second = undisturbed
    assert "cannot be locked" in second
    assert (folder / LONG).exists()


@pytest.fixture
def long_job(finished: Path, tmp_path: Path) -> Iterator[tuple[Path, "subprocess.Popen[bytes]"]]:
    """A Snakemake in the middle of fine-tuning: the first checkpoint is there."""
    folder = trains_longer(finished, tmp_path / "copy")
    command = [sys.executable, "-m", "snakemake", "--cores", "1", LONG]
    unforked = os.environ | {FORKED_FROM: "1000"}  # so that signals to Snakemake's group reach the stage itself
    with (folder / "first.log").open("wb") as log:
        process = subprocess.Popen(command, cwd=folder, env=unforked, stdout=log, stderr=log, start_new_session=True)
        deadline = time.monotonic() + 600
        while not list(folder.glob("results/tiny/checkpoints/**/*.checkpoint")):
            assert process.poll() is None, (folder / "first.log").read_text(encoding="utf-8")
            assert time.monotonic() < deadline
            time.sleep(0.01)
        yield folder, process
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)


@pytest.mark.parametrize("how", ["kill -9 of everything", "Ctrl-C"])
def test_an_interrupted_workflow_goes_on_with_the_same_command(
    long_job: tuple[Path, "subprocess.Popen[bytes]"], how: str, undisturbed: tuple[Path, str]
) -> None:
    folder, process = long_job
    if how == "Ctrl-C":
        os.killpg(process.pid, signal.SIGINT)
    else:
        os.killpg(process.pid, signal.SIGKILL)
    process.wait(timeout=600)
    (checkpoint,) = folder.glob("results/tiny/checkpoints/**/*.checkpoint")
    name = checkpoint.relative_to(folder / "results/tiny/checkpoints")
    log, model = folder / LOG, folder / MODEL
    assert log == (folder / "results/tiny/logs" / name).with_suffix(".log")
    assert model == (folder / "results/tiny" / name).with_suffix(".safetensors") and not model.exists()
    done = snakemake(folder, LONG)  # no --unlock, no cleaning
    assert done.returncode == 0, done.stdout
    assert "epoch 8:" in log.read_text(encoding="utf-8")
    assert "epoch 1:" not in log.read_text(encoding="utf-8")
    assert model.read_bytes() == (undisturbed[0] / MODEL).read_bytes()
