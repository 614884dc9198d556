"""What a network that is trained for retrieval needs: the images of its protocol, and its loss."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from creditflow.compute.randomness import Streams
from creditflow.core.settings import parse
from creditflow.data.settings import InputSettings
from creditflow.retrieval.hyp2 import HyP2
from creditflow.retrieval.protocol import load_retrieval
from creditflow.retrieval.settings import RetrievalSettings
from creditflow.retrieval.task import Retrieval
from creditflow.training.task import TrainingData


def retrieval_training(
    values: Mapping[str, Any],
    path: Path,
    classes: Sequence[int] | None,
    inputs: InputSettings,
    streams: Streams,
    device: torch.device,
) -> tuple[TrainingData, Retrieval]:
    """Returns the images and the task of a training for retrieval.

    Args:
        values: what `RetrievalSettings` takes, as the option --retrieval gives it.
        path: the prepared dataset.
        classes: the labels to use; all if None.
        inputs: what the network sees of an image.
        streams: where the proxies of the loss get their random start, under the purpose "proxies".
        device: where the images are to be.

    Raises:
        UserError: as `parse` and `load_retrieval` do.
    """
    settings = parse(RetrievalSettings, values, "--retrieval")
    parts = load_retrieval(path, settings.protocol, classes, inputs)
    data = TrainingData(train=parts["train"].to(device), test=parts["query"].to(device))
    loss = HyP2(settings.bits, len(data.train.class_names), settings.loss, streams.generator("proxies"))
    return data, Retrieval(loss, settings.top, settings.proxy_learning_rate)
