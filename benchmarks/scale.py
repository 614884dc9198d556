"""Time and memory of the workflow's own work as an experiment grows: parsing, a dry-run of everything, collecting all records.

    python benchmarks/scale.py [--jobs N ...]

An experiment with as many jobs is generated in a scratch folder; its records are made up, 100 images each, and no job is run.
Peak memory is that of the process and its children. The limit is 60 s and 2 GB at 10,000 jobs.

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
from pathlib import Path

import numpy as np
import yaml

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

from creditflow.records.record import Keys, Metric, write_record
from creditflow.stages.command_line import positive
from creditflow.workflow.experiments import Experiment, load_experiments

ROOT = Path(__file__).resolve().parents[1]
RULES, IMAGES, EPSILONS = ["bp", "usf", "frsf", "brsf", "fa"], 100, [0.01, 0.05, 0.1]
#: Of one seed: pretraining; for each rule fine-tuning, evaluation, two attacks through two gradients each, and one that uses none.
PER_SEED = 1 + len(RULES) * (1 + 1 + 2 * 2 + 1)


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
            "fgsm": attack,
            "pgd": attack | {"settings": {"steps": 5}},
            "square": attack | {"settings": {"queries": 10}},
        },
        "audit": {"epsilons": EPSILONS, "attacks": ["fgsm", "pgd", "square"], "claim": "pgd"},
        "tables": {"audit": {}, "table1": {}},
        "figures": {"figure2": {}},
    }


def measured(command: list[str], folder: Path, log: Path) -> tuple[float, float, str]:
    """Returns seconds, peak gigabytes and the output of a command."""
    start = time.perf_counter()
    with log.open("wb") as file:
        process = subprocess.Popen(command, cwd=folder, stdout=file, stderr=subprocess.STDOUT)
        _, status, usage = os.wait4(process.pid, 0)
    if status != 0:
        sys.exit(f"error: {' '.join(command)}: {log.read_text()[-2000:]}")
    return time.perf_counter() - start, usage.ru_maxrss / 2**20, log.read_text()


def make_up_records(found: Experiment, results: Path) -> int:
    rng = np.random.default_rng(0)
    n = 0
    for dataset, backbone, rule, seed in found.chains():
        conditions = [("clean", "none"), *found.conditions(dataset, rule, seed, backbone)]
        for attack, gradient in conditions:
            epsilons = [None] if attack == "clean" else EPSILONS
            correct = rng.random((len(epsilons), IMAGES)) < 0.5
            metric = "accuracy" if attack == "clean" else "robust_accuracy"
            metrics = [
                Metric(metric, epsilon, float(row.mean()), IMAGES)
                for epsilon, row in zip(epsilons, correct, strict=True)
            ]
            keys = Keys(found.name, "classification", dataset, backbone, rule, seed, attack, gradient)
            place = f"{dataset}/{backbone}/{rule}" + ("" if attack == "clean" else f"/{attack}/{gradient}")
            path = results / found.name / ("evaluate" if attack == "clean" else "attack") / place / f"seed{seed}.json"
            facts = {"settings": {"norm": "linf"}, "checks": {}, "provenance": {}, "run": {"wall_time_s": 1.0}}
            write_record(path, keys, metrics, {"correct": correct, "example": np.arange(IMAGES)}, **facts)
            n += 1
    return n


def at(n_jobs: int, folder: Path) -> dict[str, tuple[float, float]]:
    for name in ("Snakefile", "rules", "src", "config", "profiles", "envs", "containers"):
        source = ROOT / name
        (shutil.copytree if source.is_dir() else shutil.copy)(source, folder / name)
    (folder / "config/experiments/scale.yaml").write_text(yaml.safe_dump(experiment(n_jobs)))
    log, snakemake = folder / "log", [sys.executable, "-m", "snakemake", "--cores", "1"]
    found: dict[str, tuple[float, float]] = {}
    found["parsing"] = measured([*snakemake, "--list-rules"], folder, log)[:2]
    seconds, memory, said = measured([*snakemake, "-n", "--quiet", "rules", "--", "scale"], folder, log)
    found["dry-run"] = seconds, memory
    total = next(int(line.split()[1]) for line in said.splitlines() if line.startswith("total"))
    experiments = load_experiments(folder / "config/experiments", folder / "config/schema.yaml")
    n = make_up_records(experiments["scale"], folder / "results")
    collect = [
        sys.executable,
        "src/collect.py",
        "--experiment",
        "scale",
        "--records",
        "records.parquet",
        "--summary",
        "summary.parquet",
    ]
    found["collecting"] = measured(collect, folder, log)[:2]
    settings = json.dumps(experiments["scale"].keys["audit"])
    audit = [
        sys.executable,
        "src/audit.py",
        "--experiment",
        "scale",
        "--settings",
        settings,
        "--output",
        "audit.parquet",
    ]
    found["auditing"] = measured(audit, folder, log)[:2]
    size = (folder / "records.parquet").stat().st_size / 2**20
    print(f"{total} jobs, {n} records, records.parquet of {size:.2f} MiB", flush=True)
    for name, (seconds, memory) in found.items():
        print(f"  {name}: {seconds:.1f} s, {memory:.2f} GB", flush=True)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=positive, nargs="+", default=[1000, 3000, 10_000])
    args = parser.parse_args()
    os.fsync = lambda fd: None  # made-up records need not outlive a power cut
    found: dict[str, float] = {}
    for n_jobs in args.jobs:
        with tempfile.TemporaryDirectory() as name:
            for what, (seconds, memory) in at(n_jobs, Path(name)).items():
                found |= {f"{what}_{n_jobs}_s": round(seconds, 2), f"{what}_{n_jobs}_gb": round(memory, 3)}
    print(json.dumps(found))


if __name__ == "__main__":
    main()
