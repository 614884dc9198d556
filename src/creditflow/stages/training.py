"""What the stages pretrain and finetune share: options, resume point, saving."""

import argparse
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from creditflow.compute.checkpoints import Resume
from creditflow.compute.provenance import Stopwatch, provenance_of
from creditflow.core import files
from creditflow.core.settings import parse
from creditflow.data.inputs import InputSettings
from creditflow.data.prepared import Subset, load_prepared
from creditflow.models.build import ImageClassifier
from creditflow.models.storage import save_model
from creditflow.stages.command_line import add_compute_options, existing_file, json_object, natural, stage_parser
from creditflow.training.loop import TrainingSettings, train
from creditflow.training.task import Task


def training_parser(description: str | None) -> argparse.ArgumentParser:
    """Returns a parser with the options of both stages."""
    parser = stage_parser(description)
    parser.add_argument("--data", type=existing_file, required=True, help="dataset that prepare.py wrote")
    parser.add_argument("--classes", type=natural, nargs="+", help="labels to use, renumbered 0, 1, ...; all if absent")
    parser.add_argument(
        "--input", type=json_object, default={}, help='what the network sees, such as {"size": 224, "channels": 3}'
    )
    parser.add_argument(
        "--settings", type=json_object, required=True, help='{"epochs": 3, "batch_size": 32, "learning_rate": 1e-3}'
    )
    parser.add_argument("--checkpoint", type=Path, help="resume file; written after each epoch, removed at the end")
    parser.add_argument("--output", type=Path, required=True, help="model file to write (.safetensors, with sidecar)")
    add_compute_options(parser)
    return parser


def training_data(args: argparse.Namespace, device: torch.device) -> tuple[Subset, Subset]:
    """Returns training and test split, on the device. Raises UserError as `load_prepared` does."""
    inputs = parse(InputSettings, args.input, "--input")
    train_split, test_split = (
        load_prepared(args.data, split, args.classes, inputs).to(device) for split in ("train", "test")
    )
    return train_split, test_split


def train_stage(
    args: argparse.Namespace,
    model: ImageClassifier,
    rule: str,
    data: Subset,
    test: Subset,
    identity: dict[str, Any],
    watch: Stopwatch,
    task: Task | None = None,
) -> None:
    """Trains with progress on the terminal and a resume point that fits only this very job, then saves the model.

    `identity` says which job this is, beyond what the common options say. Raises UserError.
    """
    settings = parse(TrainingSettings, args.settings, "--settings")
    identity = identity | {
        "settings": asdict(settings),
        "input": args.input,
        "classes": args.classes,
        "data": files.file_sha256(args.data),
        "seed": args.seed,
    }
    provenance = provenance_of(identity, watch.device)
    # A resume point of other code, libraries, device or threads would give a model that no single code has trained. The code
    # counts by its content (source_hash): a commit in the meantime that leaves it alone does no harm.
    whole = [identity, provenance | {"git_commit": None}]
    resume = Resume(args.checkpoint, files.fingerprint(whole)) if args.checkpoint else None
    rows: list[dict[str, float]] = []

    def on_epoch(row: dict[str, float]) -> None:
        rows.append(row)
        _print_row(row)

    with files.only_one_writer(args.checkpoint or args.output):
        state, history = train(
            model,
            rule,
            data,
            test,
            settings,
            seed=args.seed,
            stream=identity["stage"],
            task=task,
            resume=resume,
            on_epoch=on_epoch,
        )
        run = watch.run_facts() | {"epochs_of_this_run": len(rows)}  # fewer than all where a killed run was resumed
        save_model(
            args.output,
            model,
            rule=rule,
            feedback=state,
            seed=args.seed,
            settings=identity,
            history=history,
            measured_images=dict.fromkeys(("loss", "train_accuracy"), len(data.labels))
            | dict.fromkeys(("update_angle", "feedback_cosine"), min(settings.angle_images, len(data.labels))),
            provenance=provenance,
            run=run,
        )
        if args.checkpoint:
            args.checkpoint.unlink(missing_ok=True)


#: How numbers of a history are shown on the terminal; shares in percent unless they are here.
_PLAIN = {"epoch": "{:.0f}", "loss": "{:.4f}", "update_angle": "{:.1f}", "feedback_cosine": "{:.2f}"}


def _print_row(row: dict[str, float]) -> None:
    parts = [f"{name.replace('_', ' ')} {_PLAIN.get(name, '{:.2%}').format(value)}" for name, value in row.items()]
    print(f"{parts[0]}: {', '.join(parts[1:])}", flush=True)
