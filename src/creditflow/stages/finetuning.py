"""What only fine-tuning has beside pretraining: settings of its own, and a head that may be kept."""

import argparse

from creditflow.core.errors import UserError
from creditflow.core.run_memory import known_sha256
from creditflow.core.settings import parse
from creditflow.models.build import ImageClassifier
from creditflow.models.storage import read_sidecar
from creditflow.training.settings import FinetuningSettings, TrainingSettings


def training_settings(args: argparse.Namespace, stage: str) -> TrainingSettings:
    """Returns what the option --settings says, for the stage "pretrain" or "finetune".

    Raises UserError as `parse` does, and for a head or statistics that are to be kept where no model is given.
    """
    settings: TrainingSettings | FinetuningSettings = parse(
        FinetuningSettings if stage == "finetune" else TrainingSettings, args.settings, "--settings"
    )
    if settings.batch_norm == "frozen" and getattr(args, "pretrained", None) is None:
        raise UserError(
            "--settings: batch_norm: frozen keeps the statistics of a pretrained model, and a random start has none;"
            " leave it out"
        )
    if isinstance(settings, FinetuningSettings) and settings.head == "kept" and args.pretrained is None:
        raise UserError("--settings: a head can be kept only of the model --pretrained; name it, or use head: fresh")
    return settings


def keep_head(args: argparse.Namespace, model: ImageClassifier, pretrained: ImageClassifier) -> None:
    """Gives a model the head of the model that it starts from, if the settings ask for that.

    Raises UserError if that head was trained on other images or classes than those of `--data`.
    """
    settings = training_settings(args, "finetune")
    if not isinstance(settings, FinetuningSettings) or settings.head == "fresh":
        return
    known = read_sidecar(args.pretrained).get("settings")
    wanted = {"data": known_sha256(args.data), "classes": args.classes}
    same = isinstance(known, dict) and all(known.get(name, 0) == value for name, value in wanted.items())
    if not same or pretrained.spec.n_classes != model.spec.n_classes:
        raise UserError(
            f"--settings: the head of {args.pretrained} was trained on other images or classes than those of --data,"
            " and cannot be kept; use head: fresh"
        )
    model.head.load_state_dict(pretrained.head.state_dict())
