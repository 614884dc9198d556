"""A finished experiment in small: made-up records of two rules in the true format, their networks, and their audit."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from creditflow.attacks.kinds import required_of
from creditflow.core.files import file_sha256, fingerprint
from creditflow.models.build import ModelSpec, build_model
from creditflow.models.storage import save_model
from creditflow.records.frames import write_frame
from creditflow.records.record import Keys, Metric, read_record, write_record
from creditflow.verdict.verdicts import audit
from creditflow.workflow.experiments import Experiment
from creditflow.workflow.outputs import models, record_paths

TRAINING = {"epochs": 1, "batch_size": 8, "learning_rate": 0.1}
ATTACK = {"epsilons": [0.1], "images": 20, "batch_size": 20, "gradients": ["exact"]}
TINY: dict[str, Any] = {
    "description": "two rules, made up",
    "datasets": {"digits": {"source": "digits"}},
    "backbones": ["small_cnn"],
    "rules": ["bp", "frsf"],
    "seeds": [0, 1],
    "threads": 1,
    "pretrain": {"start": "random"},
    "finetune": {"datasets": ["digits"], "settings": TRAINING},
    "gradients": ["exact", "feedback"],
    "attacks": {
        "pgd": ATTACK | {"gradients": ["exact", "feedback"], "settings": {"steps": 1}},
        "apgd_scaled": ATTACK,
        "square": {key: value for key, value in ATTACK.items() if key != "gradients"},
        "transfer": {key: value for key, value in ATTACK.items() if key != "gradients"},
    },
    "audit": {"epsilons": [0.1], "attacks": ["pgd", "apgd_scaled", "square", "transfer"], "claim": "pgd"},
    "tables": {"audit": {}},
    "figures": {},
}
VERSIONS: dict[str, str | None] = {"torch": "2.9", "foolbox": None}
RUN = {"started": "2026-01-01T00:00:00Z", "wall_time_s": 1.0, "host": "secret", "processor": "x86_64"}


def made_by(source: str, settings: dict[str, Any]) -> dict[str, Any]:
    facts = {"creditflow": "0.1", "git_commit": "c0ffee", "source_hash": source, "config_hash": fingerprint(settings)}
    return facts | {"device": "cpu", "threads": 1, "container": None, "python": "3.11", "versions": VERSIONS}


def written_models(experiment: Experiment, results: Path, source: Callable[[str], str]) -> dict[tuple[str, int], str]:
    """Writes a small network for each rule and seed, and returns the SHA-256 of its weights."""
    hashes = {}
    for path in models(experiment, results):
        rule, seed = path.parent.name, int(path.name.removeprefix("seed"))
        model = build_model(ModelSpec("small_cnn", (1, 8, 8), 10, (0.3,), (0.2,)), "test", seed)
        identity = {"stage": "finetune", "experiment": "tiny", "task": "classification", "dataset": "digits"}
        identity |= {"backbone": "small_cnn", "rule": rule, "seed": seed}  # type: ignore[dict-item]
        settings = {"classes": None, "data": "dada", "pretrained": None, "settings": TRAINING}
        facts = {"identity": identity, "provenance": made_by(source(rule), settings), "run": RUN}
        save_model(path.with_suffix(".safetensors"), model, rule=rule, settings=settings, **facts)
        hashes[rule, seed] = file_sha256(path.with_suffix(".safetensors"))
    return hashes


def made(
    folder: Path, experiment: Experiment, source: Callable[[str], str] = lambda rule: "aaaa", trained: str = ""
) -> None:
    """Writes made-up records and networks, and the audit of them; `trained` names other sources for BP's networks."""
    results = folder / "results"
    trained_by = (lambda rule: trained if rule == "bp" else "aaaa") if trained else source
    hashes = written_models(experiment, results, trained_by)
    for path in record_paths(experiment, results):
        stage_name, dataset, backbone, rule, *attack = path.relative_to(results / "tiny").parent.parts
        seed = int(path.stem.removeprefix("seed"))
        if attack:
            attack[1] = attack[1].replace("surrogate-", "surrogate:")
        share = {"evaluate": 1.0}.get(stage_name, 0.9 if attack[-1:] == ["feedback"] else 0.2)
        correct = (np.arange(20) < round(20 * share))[None]
        settings = {"norm": "linf", "model": {"weights": hashes[rule, seed]}}
        name, epsilon = ("robust_accuracy", 0.1) if attack else ("accuracy", None)
        write_record(
            path,
            Keys("tiny", "classification", dataset, backbone, rule, seed, *(attack or ["clean", "none"])),
            [Metric(name, epsilon, float(correct.mean()), 20)],
            {"correct": correct, "example": np.arange(20)},
            checks={"chance": 0.1} if not attack else {},
            settings=settings,
            provenance=made_by(source(rule), settings),
            run=RUN,
        )
    records = [read_record(path) for path in record_paths(experiment, results)]
    frame = audit(records, experiment.keys["audit"], "correct", required_of("classification"))
    write_frame(results / "tiny/audit.parquet", frame, "audit", records)
