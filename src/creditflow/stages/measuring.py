"""What the stages that measure a model share: options, the measured model, and keys and metrics of the record.

Stages that measure without an attack use this file, so it imports nothing of `creditflow.attacks`.
"""

import argparse
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from creditflow.core.errors import UserError, one_line
from creditflow.core.settings import parse
from creditflow.data.prepared import Subset, load_prepared
from creditflow.data.settings import InputSettings
from creditflow.models.build import ImageClassifier
from creditflow.models.fitting import check_fits
from creditflow.models.storage import load_model, read_sidecar
from creditflow.records.record import Keys, Metric
from creditflow.stages import identity
from creditflow.stages.command_line import existing_file, file_path, json_object, natural

Model = TypeVar("Model", bound=nn.Module)

#: Numbers of a training history that go into the record.
_HISTORY = (
    "loss",
    "train_accuracy",
    "validation_accuracy",
    "validation_adversarial_accuracy",
    "test_accuracy",
    "test_adversarial_accuracy",
    "test_map",
    "update_angle",
    "feedback_cosine",
    "v_cosine",
    "effective_rank",
    "h_mean_eigenvalue",
    "h_largest_eigenvalue",
    "loop_growth",
    "median_gap",
    "zero_gradients_float32",
    "zero_gradients_float64",
)

#: How numbers begin that are measured on a population's `angle_images`: angle_bp_layer1, theorem_cosine, ...
_ON_ANGLE_IMAGES = ("angle_", "modulation_", "theorem_")


def add_model_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options that say what is measured."""
    parser.add_argument(
        "--model",
        type=existing_file,
        required=True,
        help="model file that finetune.py, pretrain.py, select_member.py, import_model.py or save_model wrote",
    )
    parser.add_argument("--data", type=existing_file, required=True, help="dataset that prepare.py wrote")
    parser.add_argument(
        "--input", type=json_object, default={}, help='what the network sees, such as {"size": 224, "channels": 3}'
    )
    parser.add_argument("--classes", type=natural, nargs="+", help="labels to use, renumbered 0, 1, ...; all if absent")
    identity.add_filing_options(parser)
    identity.add_expected_data(parser)
    identity.add_expected_model(parser)


def add_record_option(parser: argparse.ArgumentParser) -> None:
    """Adds the option that says where the record goes."""
    parser.add_argument("--record", type=file_path, required=True, help="record to write (.json, outcomes beside it)")


def loaded(args: argparse.Namespace, device: torch.device) -> tuple[nn.Module, dict[str, Any], Subset]:
    """Returns the plain model, its sidecar and the test split, on the device.

    Raises UserError as `load_model` and `load_prepared` do, if they are not what is expected, and if model and data do
    not fit each other.
    """
    check_expected(args)
    inputs = parse(InputSettings, args.input, "--input")
    model, data = load_model(args.model), load_prepared(args.data, "test", args.classes, inputs)
    shape, n_classes = data.image_shape, len(data.class_names)
    if not isinstance(model, ImageClassifier):
        check_fits(model, data, str(args.model))
    elif (model.spec.image_shape, model.spec.n_classes) != (shape, n_classes):
        raise UserError(
            f"{args.model} takes images {model.spec.image_shape} of {model.spec.n_classes} classes,"
            f" the data has {shape} of {n_classes}; check --data, --classes and --input"
        )
    elif model.spec.inner_shape != data.inner_shape:
        raise UserError(
            f"{args.model} enlarges images to {model.spec.inner_shape}, --input says {data.inner_shape}; give the"
            " upsample that it was trained with"
        )
    return placed(model, device), read_sidecar(args.model), data.to(device)


def check_expected(args: argparse.Namespace) -> None:
    """Raises UserError if data or model are not what the options say is expected."""
    identity.check_data(args)
    identity.check_model(args.model, args.expect_model, args.data)


def placed(model: Model, device: torch.device) -> Model:
    """Moves a model to its device.

    On a CPU the convolutions of our networks compute with channels last (docs/performance.md says why). Any other
    module keeps its layout: many flatten their maps by `view`, which takes no other.
    """
    is_classifier = isinstance(model, ImageClassifier)
    layout = torch.channels_last if is_classifier and device.type == "cpu" else torch.preserve_format
    model.to(device=device, memory_format=layout)  # type: ignore[call-overload]
    return model


def record_keys(
    args: argparse.Namespace, sidecar: dict[str, Any], *, attack: str, gradient: str, task: str = "classification"
) -> Keys:
    """Returns the identifying keys of a measurement on this model."""
    return Keys(
        experiment=args.experiment,
        task=task,
        dataset=identity.dataset_name(args),
        backbone=identity.network_name(sidecar),
        rule=sidecar["rule"],
        seed=sidecar.get("seed", args.seed),
        attack=attack,
        gradient=gradient,
    )


def accuracy_metric(correct: Tensor) -> Metric:
    """Returns the clean accuracy; `correct` is bool (N,)."""
    return Metric("accuracy", None, float(correct.double().mean()), len(correct))


def chance_check(labels: Tensor) -> dict[str, float]:
    """Returns, under "chance", the accuracy of the best constant answer: the share of the commonest label.

    The labels are int64 (N,). Nothing is returned for uint8 zeros and ones (N, K): there an answer is right if it is
    one of an image's labels, and so chance says little.
    """
    return {} if labels.dim() > 1 else {"chance": float(labels.cpu().bincount().max()) / len(labels)}


def decay_check(sidecar: dict[str, Any]) -> dict[str, float]:
    """Returns, under "below_decay", the share of layers whose gradient lay below weight decay when training began.

    Nothing is returned for a model of whose training that was not measured. Raises UserError if the sidecar's rows are
    none that training could have written.
    """
    rows = sidecar.get("below_decay", [])
    if not isinstance(rows, list) or not all(isinstance(row, dict) and "is_below" in row for row in rows):
        raise UserError(
            "the model's sidecar tells of its training what training cannot have written (below_decay); train the"
            " model again"
        )
    return {"below_decay": sum(bool(row["is_below"]) for row in rows) / len(rows)} if rows else {}


def history_metrics(sidecar: dict[str, Any], n_images: int) -> list[Metric]:
    """Returns what the model's training measured after each epoch, and what was chosen for a member of a population.

    `n_images` is how many images a number of the history is measured on, where the sidecar does not say. Raises
    UserError if the sidecar tells no history that training could have written.
    """
    try:
        return _history_metrics(sidecar, n_images)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(
            f"the model's sidecar tells a history that training cannot have written ({one_line(error)}); train the"
            " model again"
        ) from error


def _history_metrics(sidecar: dict[str, Any], n_images: int) -> list[Metric]:
    counts = sidecar.get("measured_images", {})
    metrics = [
        Metric(
            name,
            None,
            float(value),
            counts.get("update_angle" if name.startswith(_ON_ANGLE_IMAGES) else name, n_images),
            epoch=int(row["epoch"]),
        )
        for row in sidecar.get("history", [])
        for name, value in row.items()
        if name in _HISTORY or name.startswith(_ON_ANGLE_IMAGES)
    ]
    if "learning_rate" in sidecar:
        metrics.append(Metric("learning_rate", None, sidecar["learning_rate"], 1))
        metrics += _grid_metrics(sidecar)
        metrics.append(Metric("chosen_epoch", None, sidecar["epoch"], 1))
    return metrics


def _grid_metrics(sidecar: dict[str, Any]) -> list[Metric]:
    """Returns the lowest and the highest learning rate from which a member's was chosen; nothing without a choice."""
    tried = sidecar["settings"]["training"]["learning_rates"]
    if len(set(tried)) < 2:
        return []
    return [Metric("lowest_rate", None, float(min(tried)), 1), Metric("highest_rate", None, float(max(tried)), 1)]
