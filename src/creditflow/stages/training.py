"""What the stages pretrain and finetune share: options, images, the model at its start, resume point, saving."""

import argparse
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from creditflow.compute.checkpoints import Resume
from creditflow.compute.provenance import Stopwatch, provenance_of
from creditflow.compute.randomness import Streams
from creditflow.core import files, plugins
from creditflow.core.errors import UserError
from creditflow.core.identity import check_identity
from creditflow.core.matched import matched_to
from creditflow.core.run_memory import known_sha256
from creditflow.core.settings import parse, plain
from creditflow.data.prepared import load_prepared
from creditflow.data.settings import InputSettings
from creditflow.models.build import ImageClassifier, ModelSpec, build_model, replace_head
from creditflow.models.storage import load_classifier, save_model
from creditflow.records.record import read_record
from creditflow.stages import identity
from creditflow.stages.command_line import (
    add_compute_options,
    existing_file,
    file_path,
    json_object,
    natural,
    stage_parser,
)
from creditflow.stages.finetuning import keep_head, training_settings
from creditflow.training.decay import LayerDecay, in_words
from creditflow.training.loop import Stop, train
from creditflow.training.settings import TrainingSettings
from creditflow.training.task import Task, TrainingData


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
    parser.add_argument(
        "--checkpoint", type=file_path, help="resume file; written after each epoch, removed at the end"
    )
    parser.add_argument(
        "--output", type=file_path, required=True, help="model file to write (.safetensors, with sidecar)"
    )
    identity.add_filing_options(parser)
    identity.add_expected_data(parser)
    add_compute_options(parser)
    return parser


def input_settings(args: argparse.Namespace) -> InputSettings:
    """Returns what the option --input says. Raises UserError as `parse` does."""
    return parse(InputSettings, args.input, "--input")


def classification_data(args: argparse.Namespace, device: torch.device) -> TrainingData:
    """Returns training and test split, on the device. Raises UserError as `load_prepared` does."""
    inputs = input_settings(args)
    train_split, test_split = (
        load_prepared(args.data, split, args.classes, inputs).to(device) for split in ("train", "test")
    )
    return TrainingData(train_split, test_split)


def new_model(args: argparse.Namespace, stage: str, data: TrainingData, task: Task) -> ImageClassifier:
    """Returns the network `--backbone` for this task and these images, from a random start. Raises UserError."""
    images = data.train
    spec = ModelSpec(args.backbone, images.image_shape, task.n_outputs(images), images.mean, images.std)
    return build_model(replace(spec, inner_shape=images.inner_shape), stage, args.seed)


def pretrained_model(args: argparse.Namespace, stage: str, data: TrainingData, task: Task) -> ImageClassifier:
    """Returns the model `--pretrained`, with a fresh head for this task unless the settings keep its own.

    A model that takes images of the size to which `--input` has the network enlarge them is given the enlargement.

    Raises UserError if the file is not a model, is not the one that is expected, takes images of another shape than
    those of `--data`, or has a head that cannot be kept.
    """
    identity.check_model(args.pretrained, args.expect_pretrained)
    pretrained, images = load_classifier(args.pretrained), data.train
    spec, wanted = pretrained.spec, images.inner_shape or images.image_shape
    enlarged = spec.inner_shape or spec.image_shape
    if enlarged != wanted or (spec.inner_shape and spec.image_shape != images.image_shape):
        raise UserError(f"{args.pretrained} takes images {enlarged}, {args.data} gives {wanted} with this --input")
    enlarges = images.image_shape if images.inner_shape else None
    model = replace_head(pretrained, task.n_outputs(images), stage, args.seed, enlarges=enlarges)
    keep_head(args, model, pretrained)
    return model


def add_rule_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options that say which rule trains, and when backpropagation stops to be as accurate as another one."""
    rules = ", ".join(plugins.names("rule"))
    parser.add_argument(
        "--rule",
        required=True,
        help=f"one of: {rules}; or bp_matched_<rule>, which backpropagation trains; or bp_head_only, of which it trains"
        " the head alone",
    )
    parser.add_argument(
        "--match",
        type=existing_file,
        help="record that evaluate.py wrote of <rule>, for --rule bp_matched_<rule>: backpropagation stops as soon as"
        " its clean accuracy is this record's",
    )


def stop_at(args: argparse.Namespace) -> Stop | None:
    """Returns where the training of `bp_matched_<rule>` ends; None for all other networks.

    Raises UserError if --match is missing, is not needed, or is not the record of the rule's clean accuracy, on the
    same data and of the same seed.
    """
    rule = matched_to(args.rule)
    if (rule is None) != (args.match is None):
        raise UserError("--match goes with --rule bp_matched_<rule>, and only with it; give both or neither")
    if rule is None:
        return None
    record = read_record(args.match)
    filed = {"experiment": args.experiment, "dataset": identity.dataset_name(args)}
    expected = filed | {"task": "classification", "rule": rule, "seed": args.seed, "attack": "clean"}
    check_identity(args.match, "the record", asdict(record.keys), expected)
    return Stop(next(metric.value for metric in record.metrics if metric.metric == "accuracy"))


def train_stage(
    args: argparse.Namespace,
    model: ImageClassifier,
    rule: str,
    data: TrainingData,
    task: Task,
    job: dict[str, Any],
    watch: Stopwatch,
    stop: Stop | None = None,
) -> None:
    """Trains with progress on the terminal and a resume point that fits this very job only, then saves the model.

    Args:
        args: the options of `training_parser`.
        model: the network, on the device of the data.
        rule: id of the feedback rule.
        data: training and test images.
        task: what the model is trained for.
        job: what says which job this is, beside the common options; with the name of the stage under "stage".
        watch: measures the job.
        stop: the accuracy at which the training ends; None for all epochs.

    Raises:
        UserError: as `train` does, and if another process works on the same file.
    """
    settings = training_settings(args, job["stage"])
    job = (
        job
        | {
            "spec": model.spec.to_json(),
            "settings": plain(settings),
            "input": args.input,
            "classes": args.classes,
            "data": known_sha256(args.data),
            "seed": args.seed,
        }
        | ({} if stop is None else {"accuracy": stop.accuracy})
    )
    provenance = provenance_of(job, watch.device)
    rows: list[dict[str, float]] = []
    decay: list[dict[str, Any]] = []

    def on_start(measured: Sequence[LayerDecay]) -> None:
        decay.extend(asdict(row) | {"is_below": row.is_below} for row in measured)
        if (warning := in_words(measured)) is not None:
            files.warn(f"{warning}; {_ADVICE}")

    def on_epoch(row: dict[str, float]) -> None:
        rows.append(row)
        _print_row(row)

    with files.only_one_writer(args.checkpoint or args.output):
        streams, resume = Streams(job["stage"], args.seed), _resume_point(args.checkpoint, job, provenance)
        state, history = train(
            model,
            rule,
            data,
            settings,
            streams,
            task=task,
            resume=resume,
            stop=stop,
            on_start=on_start,
            on_epoch=on_epoch,
        )
        facts = {
            "identity": _filed_as(args, model, rule, job),
            "seed": args.seed,
            "settings": job,
            "below_decay": decay,
            "history": history,
            "measured_images": _measured_images(settings, settings.train_images or len(data.train.labels)),
            "provenance": provenance,
            # If this run was resumed, it has trained for fewer epochs than the model.
            "run": watch.run_facts() | {"epochs_of_this_run": len(rows)},
        }
        save_model(args.output, model, rule=rule, feedback=state, **facts)
        if args.checkpoint:
            args.checkpoint.unlink(missing_ok=True)


#: What helps against a gradient that lies below weight decay.
_ADVICE = "set `scale: norm` in the settings of fine-tuning, or lower `weight_decay`"


def _filed_as(args: argparse.Namespace, model: ImageClassifier, rule: str, job: dict[str, Any]) -> dict[str, Any]:
    """Returns what the model is: the stage that trained it, and the names under which it is filed."""
    return {
        "stage": job["stage"],
        "experiment": args.experiment,
        "task": "retrieval" if "retrieval" in job else "classification",
        "dataset": identity.dataset_name(args),
        "backbone": model.spec.backbone,
        "rule": rule,
        "seed": args.seed,
    }


def _resume_point(path: Path | None, job: dict[str, Any], provenance: dict[str, Any]) -> Resume | None:
    """Returns the checkpoint of a job, which no other job will take for its own; None without a path."""
    if path is None:
        return None
    # A checkpoint of other code, libraries, device, instructions or threads would give a model that no single version
    # of the code has trained. The code is compared by its content (source_hash), so that a commit which changes nothing
    # does no harm. Nor does a CPU's model: the nodes of a cluster may differ in it.
    return Resume(path, files.fingerprint([job, provenance | {"git_commit": None, "cpu": None}]))


def _measured_images(settings: TrainingSettings, n_images: int) -> dict[str, int]:
    """Returns the number of training images behind each column of the history that is measured on them."""
    on_probe = min(settings.angle_images, n_images)
    return {
        "loss": n_images,
        "train_accuracy": n_images,
        "update_angle": on_probe,
        "feedback_cosine": on_probe,
    }


#: How the terminal shows the numbers of a history; what is not named here is a share and shown in percent.
_PLAIN = {"epoch": "{:.0f}", "loss": "{:.4f}", "update_angle": "{:.1f}", "feedback_cosine": "{:.2f}"}


def _print_row(row: dict[str, float]) -> None:
    parts = [f"{name.replace('_', ' ')} {_PLAIN.get(name, '{:.2%}').format(value)}" for name, value in row.items()]
    print(f"{parts[0]}: {', '.join(parts[1:])}", flush=True)
