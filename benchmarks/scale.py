"""Time and memory of the workflow's own work as an experiment grows.

It parses the workflow, plans everything in a dry-run, and collects and audits all records. It also prints how much of
the dry-run's processor time is spent in our code: in what the Snakefile and the rules run while they are read, in the
functions that give jobs their inputs and parameters, and in what listens to Snakemake's events. The rest is Snakemake's
(see `_dry_run.py`).

    python benchmarks/scale.py [--jobs N ...]

An experiment with as many jobs is generated in a scratch folder. Its records are made up, 100 images each, and no job
is run.
Peak memory is that of the process and its children. The limit is 60 s and 2 GB at 10,000 jobs, and a tenth of the
dry-run's time for our code.

The last line is one JSON object {name: number}.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import yaml

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

from creditflow.records.record import Keys, Metric, write_record
from creditflow.stages.command_line import positive
from creditflow.workflow import layout
from creditflow.workflow.experiments import Experiment
from creditflow.workflow.loading import load_experiment
from creditflow.workflow.outputs import path_of, record_paths

ROOT = Path(__file__).resolve().parents[1]
RULES, IMAGES, EPSILONS = ["bp", "usf", "frsf", "brsf", "fa"], 100, [0.01, 0.05, 0.1]
#: Jobs of one seed: pretraining; for each rule fine-tuning, evaluation, two attacks through two gradients each, and one
#: attack that uses none. Backpropagation has one gradient, as its feedback is exact.
PER_SEED = 1 + len(RULES) * (1 + 1 + 2 * 2 + 1) - 2


def experiment(n_jobs: int) -> dict[str, object]:
    settings = {"epochs": 1, "batch_size": 32, "learning_rate": 1e-3}
    attack = {"epsilons": EPSILONS, "images": IMAGES, "batch_size": IMAGES}
    return {
        "description": "as many jobs as asked for",
        "datasets": {
            "low": {"source": "digits", "classes": [0, 1, 2, 3, 4]},
            "high": {"source": "digits", "classes": [5, 6, 7, 8, 9]},
        },
        "backbones": ["small_cnn"],
        "rules": RULES,
        "seeds": list(range(max(n_jobs // PER_SEED, 1))),
        "threads": 1,
        "pretrain": {"dataset": "low", "settings": settings},
        "finetune": {"datasets": ["high"], "settings": settings | {"head_learning_rate": 1e-2}},
        "gradients": ["exact", "feedback"],
        "attacks": {
            "cascade": attack | {"settings": {"apgd_scaled": {"steps": 5}, "transfer": {"steps": 5}}},
            "pgd": attack | {"settings": {"steps": 5}},
            "square": attack | {"settings": {"queries": 10}},
        },
        "audit": {"epsilons": EPSILONS, "attacks": ["cascade", "pgd", "square"], "claim": "pgd"},
        "tables": {"audit": {}, "table1": {}},
        "figures": {"figure2": {}},
    }


def measured(command: list[str], folder: Path, log: Path) -> tuple[float, float, float]:
    """Returns seconds, peak gigabytes and seconds of processor time of a command, whose output goes to a file."""
    start = time.perf_counter()
    with log.open("wb") as file:
        process = subprocess.Popen(command, cwd=folder, stdout=file, stderr=subprocess.STDOUT)
        _, status, usage = os.wait4(process.pid, 0)
    if status != 0:
        sys.exit(f"error: {' '.join(command)}: {log.read_text(encoding='utf-8')[-2000:]}")
    return time.perf_counter() - start, usage.ru_maxrss / 2**20, usage.ru_utime + usage.ru_stime


def make_up_records(made_up: Experiment, results: Path) -> list[Path]:
    """Writes a record for each that the experiment measures, and returns their paths."""
    rng = np.random.default_rng(0)
    for chain in made_up.chains():
        dataset, backbone, rule, seed = chain
        path = path_of(layout.EVALUATE, made_up, results, chain)
        make_up(path, Keys(made_up.name, "classification", *chain, "clean", "none"), [None], rng)
        for attack, gradient in made_up.conditions(dataset, rule, seed, backbone):
            path = path_of(layout.ATTACK, made_up, results, chain, attack=attack, gradient=gradient)
            make_up(path, Keys(made_up.name, "classification", *chain, attack, gradient), EPSILONS, rng)
    return record_paths(made_up, results)


def make_up(path: Path, keys: Keys, epsilons: Sequence[float | None], rng: np.random.Generator) -> None:
    correct = rng.random((len(epsilons), IMAGES)) < 0.5
    name = "accuracy" if keys.attack == "clean" else "robust_accuracy"
    metrics = [Metric(name, epsilon, float(row.mean()), IMAGES) for epsilon, row in zip(epsilons, correct, strict=True)]
    outcomes = {"correct": correct, "example": np.arange(IMAGES)}
    facts = {"settings": {"norm": "linf"}, "checks": {}, "provenance": {}, "run": {"wall_time_s": 1.0}}
    write_record(path.with_suffix(".json"), keys, metrics, outcomes, **facts)


def dry_run(folder: Path, log: Path) -> tuple[float, float, float]:
    """Returns seconds, peak gigabytes and our share of the processor time of a dry-run."""
    command = [str(ROOT / "benchmarks/_dry_run.py"), "ours.json", "-n", "--cores", "1", "--quiet", "rules", "--"]
    seconds, memory, processor = measured([sys.executable, *command, "scale"], folder, log)
    ours: dict[str, float] = json.loads((folder / "ours.json").read_text(encoding="utf-8"))
    parts = ", ".join(f"{part} {value:.2f}" for part, value in ours.items())
    print(f"of {processor:.1f} s of processor time in a dry-run, {sum(ours.values()):.2f} s are ours: {parts}")
    return seconds, memory, sum(ours.values()) / processor


def at(n_jobs: int, folder: Path) -> tuple[dict[str, tuple[float, float]], float]:
    """Returns seconds and peak gigabytes of each step at a number of jobs, and our share of a dry-run."""
    for name in ("Snakefile", "rules", "src", "config", "profiles", "envs", "containers"):
        source = ROOT / name
        (shutil.copytree if source.is_dir() else shutil.copy)(source, folder / name)
    (folder / "config/experiments/scale.yaml").write_text(yaml.safe_dump(experiment(n_jobs)), encoding="utf-8")
    log, snakemake = folder / "log", [sys.executable, "-m", "snakemake", "--cores", "1"]
    steps: dict[str, tuple[float, float]] = {}
    steps["parsing"] = measured([*snakemake, "--list-rules"], folder, log)[:2]
    seconds, memory, ours = dry_run(folder, log)
    steps["dry-run"] = seconds, memory
    said = log.read_text(encoding="utf-8").splitlines()
    total = next(int(line.split()[1]) for line in said if line.startswith("total"))
    scale = load_experiment(folder / "config/experiments", "scale")
    records, listing = make_up_records(scale, folder / "results"), folder / "records.txt"
    listing.write_text("\n".join(map(str, records)), encoding="utf-8")
    collect = ["src/collect.py", "--records", "records.parquet", "--summary", "summary.parquet"]
    audit = ["src/audit.py", "--settings", json.dumps(scale.keys["audit"]), "--output", "audit.parquet"]
    for step, command in (("collecting", collect), ("auditing", audit)):
        steps[step] = measured([sys.executable, *command, "--records-list", str(listing)], folder, log)[:2]
    size = (folder / "records.parquet").stat().st_size / 2**20
    print(f"{total} jobs, {len(records)} records, records.parquet of {size:.2f} MiB", flush=True)
    for name, (seconds, memory) in steps.items():
        print(f"  {name}: {seconds:.1f} s, {memory:.2f} GB", flush=True)
    return steps, ours


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=positive, nargs="+", default=[1000, 3000, 10_000])
    args = parser.parse_args()
    os.fsync = lambda fd: None  # made-up records need not outlive a power cut
    numbers: dict[str, float] = {}
    for n_jobs in args.jobs:
        with tempfile.TemporaryDirectory() as name:
            steps, ours = at(n_jobs, Path(name))
        for what, (seconds, memory) in steps.items():
            numbers |= {f"{what}_{n_jobs}_s": round(seconds, 2), f"{what}_{n_jobs}_gb": round(memory, 3)}
        numbers[f"ours_of_dry-run_{n_jobs}"] = round(ours, 4)
    print(json.dumps(numbers))


if __name__ == "__main__":
    main()
