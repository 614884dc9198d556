"""What the stages pretrain and finetune share: options, resume point, saving."""

import argparse
from dataclasses import asdict
from pathlib import Path
from typing import Any

from torch import Tensor

from creditflow import files, runtime
from creditflow.cli import add_compute_options, existing_file, json_object, natural, stage_parser
from creditflow.data.prepared import Subset
from creditflow.models import ImageClassifier, save_model
from creditflow.settings import parse
from creditflow.training.loop import Resume, TrainingSettings, train

#: Feedback state, history, and the settings that the configuration hash covers.
Result = tuple[dict[str, Tensor], list[dict[str, float]], dict[str, Any]]


def training_parser(description: str | None) -> argparse.ArgumentParser:
    """Returns a parser with the options of both stages."""
    parser = stage_parser(description)
    parser.add_argument("--data", type=existing_file, required=True, help="dataset that prepare.py wrote")
    parser.add_argument("--classes", type=natural, nargs="+", help="labels to use, renumbered 0, 1, ...; all if absent")
    parser.add_argument("--settings", type=json_object, required=True, help='{"epochs": 3, "batch_size": 32, "learning_rate": 1e-3}')
    parser.add_argument("--checkpoint", type=Path, help="resume file; written after each epoch, removed at the end")
    parser.add_argument("--output", type=Path, required=True, help="model file to write (.safetensors, with sidecar)")
    add_compute_options(parser)
    return parser


def training_settings(args: argparse.Namespace) -> TrainingSettings:
    """Returns the checked hyper-parameters. Raises UserError."""
    return parse(TrainingSettings, args.settings, "--settings")


def train_stage(
    args: argparse.Namespace,
    model: ImageClassifier,
    rule: str,
    data: Subset,
    test: Subset,
    settings: TrainingSettings,
    identity: dict[str, Any],
) -> Result:
    """Trains with progress on the terminal and a resume point that fits only this very job."""
    identity = identity | {
        "settings": asdict(settings),
        "classes": args.classes,
        "data": files.file_sha256(args.data),
        "seed": args.seed,
    }
    resume = Resume(args.checkpoint, files.fingerprint(identity)) if args.checkpoint else None
    state, history = train(model, rule, data, test, settings, seed=args.seed, stream=identity["stage"], resume=resume, on_epoch=_print_row)
    return state, history, identity


def finish(args: argparse.Namespace, model: ImageClassifier, rule: str, result: Result, watch: runtime.Stopwatch) -> None:
    """Saves the model with its history and provenance, then drops the resume point."""
    state, history, identity = result
    save_model(
        args.output,
        model,
        rule=rule,
        feedback=state,
        seed=args.seed,
        settings=identity,
        history=history,
        provenance=runtime.provenance(identity, watch.device),
        run=watch.run_facts(),
    )
    if args.checkpoint:
        args.checkpoint.unlink(missing_ok=True)


def _print_row(row: dict[str, float]) -> None:
    print(
        f"epoch {row['epoch']}: loss {row['loss']:.4f}, train accuracy {row['train_accuracy']:.2%},"
        f" test accuracy {row['test_accuracy']:.2%}",
        flush=True,
    )
