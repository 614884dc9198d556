"""Adversarial images of one network, with a row for each image. The row begins with the image without an attack. Then
it shows the perturbation and the attacked image for each gradient that the attacker uses on these images. Perturbations
are amplified by the factor that their heading says; grey is no change. Below each image stands the class that the
network takes it for. A green frame means that this is right, an orange frame that it is wrong.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas
from numpy.typing import NDArray

from creditflow.core.errors import UserError
from creditflow.records.record import Record
from creditflow.reporting.figure import Figure, only
from creditflow.reporting.figures.settings.gallery import Settings
from creditflow.reporting.matrices import condition_order
from creditflow.reporting.names import display
from creditflow.reporting.outcomes import row_of_epsilon, without_draw
from creditflow.reporting.rules import rule_order
from creditflow.reporting.style import GRADIENT_WORDS, LIGHT, RIGHT, WRONG, note


def draw(outcomes: pd.DataFrame, settings: Settings) -> Canvas:
    """Returns the figure: rows are images, columns the clean image and two for each gradient."""
    records = _records(outcomes, settings)
    epsilon = max(_epsilons(records[0])) if settings.epsilon is None else settings.epsilon
    clean = records[0].outcomes["kept_clean"][: settings.images]
    rows = [row_of_epsilon(record, epsilon, "gallery") for record in records]
    attacked = [record.outcomes["kept_images"][row, : len(clean)] for record, row in zip(records, rows, strict=True)]
    factor = _factor([images - clean for images in attacked])
    canvas = Canvas(figsize=(0.4 + 1.25 * (1 + 2 * len(records)), 1.15 + 1.4 * len(clean)), layout="constrained")
    grid = canvas.subplots(len(clean), 1 + 2 * len(records), squeeze=False)
    for place, line in enumerate(grid):
        _picture(line[0], clean[place], _answer(records[0], "kept_clean_predictions", place))
        for record, row, images, pair in zip(records, rows, attacked, line[1:].reshape(-1, 2), strict=True):
            _picture(pair[0], 0.5 + factor * (images[place] - clean[place]))
            _picture(pair[1], images[place], _answer(record, "kept_predictions", (row, place)))
    _headings(grid[0], records, factor)
    note(canvas, _note(records[0], epsilon))
    return canvas


def _records(outcomes: pd.DataFrame, settings: Settings) -> list[Record]:
    """Returns the records that are shown, one for each gradient: of one network, with its first seed."""
    attacked = outcomes[outcomes.attack != "clean"]
    for column, wanted in (("dataset", settings.dataset), ("backbone", settings.backbone)):
        attacked = only(attacked, column, wanted, "gallery", "kept images")
    rules = rule_order(set(attacked.rule))
    rule = settings.rule or ("frsf" if "frsf" in rules else rules[0])
    attacked = only(attacked, "rule", rule, "gallery", "kept images")
    attacked = attacked[attacked.seed == attacked.seed.min()]
    names = condition_order(set(attacked.gradient.map(without_draw)))  # one draw of each path is enough to see it
    records = list(attacked.set_index("gradient").record.loc[names])
    for record in records:
        if "kept_images" not in record.outcomes:
            raise UserError(f"gallery: {record.path} has no images; set `keep` of the attack and run it again")
    # An attacker who met fewer images kept other ones, which do not belong beside these.
    kept = _kept_examples(records[0], settings.images)
    return [record for record in records if np.array_equal(_kept_examples(record, settings.images), kept)]


def _kept_examples(record: Record, n_images: int) -> NDArray[Any]:
    """Returns the numbers of the images that a record keeps, at most `n_images` of them."""
    kept: NDArray[Any] = record.outcomes["example"][: min(n_images, len(record.outcomes["kept_clean"]))]
    return kept


def _epsilons(record: Record) -> list[float]:
    return [metric.epsilon for metric in record.metrics if metric.epsilon is not None]


def _factor(perturbations: Sequence[NDArray[Any]]) -> int:
    """Returns the whole number by which perturbations can be multiplied without leaving the range of pixels."""
    largest = max(float(np.abs(perturbation).max()) for perturbation in perturbations)
    return max(1, int(0.5 / largest + 1e-4)) if largest > 0 else 1


def _answer(record: Record, predictions: str, place: int | tuple[int, int]) -> tuple[str, bool]:
    """Returns the name of the class that the network takes an image for, and whether that is right."""
    predicted = int(record.outcomes[predictions][place])
    label = record.outcomes["kept_labels"][place if isinstance(place, int) else place[1]]
    right = bool(label[predicted]) if label.ndim else int(label) == predicted  # several labels are zeros and ones
    return str(record.content["settings"]["class_names"][predicted]), right


def _picture(axes: Axes, pixels: NDArray[Any], answer: tuple[str, bool] | None = None) -> None:
    """Draws pixels (C, H, W) in [0, 1], framed by whether the network's answer is right."""
    grey = pixels.shape[0] == 1
    pixels = np.clip(pixels, 0, 1)
    axes.imshow(pixels[0] if grey else pixels.transpose(1, 2, 0), cmap="gray" if grey else None, vmin=0, vmax=1)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.grid(False)
    name, right = answer or ("", None)
    color = {True: RIGHT, False: WRONG, None: LIGHT}[right]
    axes.set_xlabel(name, fontsize=8, color="black" if right else color, fontweight="normal" if right else "bold")
    for spine in axes.spines.values():
        spine.set(visible=True, color=color, linewidth=0.8 if right is None else 2)


def _headings(line: Sequence[Axes], records: Sequence[Record], factor: int) -> None:
    line[0].set_title("no attack", fontsize=8)
    for record, perturbation, image in zip(records, line[1::2], line[2::2], strict=True):
        perturbation.set_title(f"{_attacker(record)}:\nperturbation x {factor}", fontsize=8)
        image.set_title("attacked image", fontsize=8)


def _attacker(record: Record) -> str:
    return GRADIENT_WORDS.get(record.keys.gradient) or display(record.keys.gradient)


def _note(record: Record, epsilon: float) -> str:
    keys = record.keys
    network = f"{display(keys.backbone)} trained with {display(keys.rule)} on {display(keys.dataset)}, seed {keys.seed}"
    norm = display(str(record.content["settings"]["norm"]))
    return f"{network}. {display(keys.attack)} at epsilon {epsilon:g} ({norm}; pixels lie in [0, 1])."


FIGURE = Figure(draw=draw, source="outcomes")
