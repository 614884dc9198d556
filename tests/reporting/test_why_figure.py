"""The figure `why`: what it shows of each gradient, and which networks it can be told to show."""

from pathlib import Path

import pandas as pd
import pytest
from matplotlib.figure import Figure as Canvas

from creditflow.core.errors import UserError
from creditflow.reporting.figure import write_figure
from creditflow.reporting.figures import why
from creditflow.reporting.figures.settings.why import Settings

STEPS = (0, 1, 10, 100)
COSINES = {"exact": 1.0, "feedback": 0.4, "through:frsf": 0.45}


def records(rules: tuple[str, ...] = ("bp", "frsf"), seeds: tuple[int, ...] = (0, 1)) -> pd.DataFrame:
    """Rows of `records.parquet` in which exact steps lower accuracy to zero, and others by half."""
    rows = []
    for rule in rules:
        for seed in seeds:
            for gradient, cosine in COSINES.items():
                keys = {
                    "dataset": "fashion_5_9",
                    "backbone": "lenet5",
                    "rule": rule,
                    "seed": seed,
                    "attack": "why",
                    "gradient": gradient,
                    "n": 100,
                }
                rows += [
                    keys | {"metric": "gradient_cosine", "value": cosine},
                    keys | {"metric": "gradient_sign_agreement", "value": (1 + cosine) / 2},
                ]
                fall = 0.9 if gradient == "exact" else 0.45
                for index, at in enumerate(STEPS):
                    part = index / (len(STEPS) - 1)
                    rows += [
                        keys | {"metric": "loss_after_steps", "epsilon": 0.1, "at": at, "value": 9 * fall * part},
                        keys | {"metric": "accuracy_after_steps", "epsilon": 0.1, "at": at, "value": 0.9 - fall * part},
                    ]
                rows += [
                    keys | {"metric": "accuracy_by_step_divisor", "epsilon": 0.1, "at": divisor, "value": 0.9 - fall}
                    for divisor in (1, 2, 10)
                ]
    return pd.DataFrame(rows)


def drawn(frame: pd.DataFrame, **settings: str) -> Canvas:
    return why.draw(frame, Settings(**settings))


def test_every_gradient_has_its_curves_and_bars() -> None:
    agreement, loss, accuracy, sizes = drawn(records()).axes
    assert len(agreement.patches) == 2 * len(COSINES)
    assert [round(patch.get_width(), 3) for patch in agreement.patches[::2]] == list(COSINES.values())
    for axes in (loss, accuracy, sizes):
        assert len(axes.lines) == len(COSINES)
    assert list(accuracy.lines[0].get_xdata()) == list(STEPS)
    assert [round(value) for value in accuracy.lines[0].get_ydata()] == [90, 60, 30, 0]
    assert sorted(sizes.lines[0].get_xdata()) == [0.1, 0.5, 1.0]


def test_the_caption_says_what_is_shown() -> None:
    text = drawn(records())._supxlabel.get_text()  # type: ignore[attr-defined]
    assert text.startswith("LeNet-5, Fashion-MNIST 5-9, BP; epsilon 0.1 (L-infinity); n = 100 images x 2 seeds")
    assert "one seed" in drawn(records(seeds=(0,)), rule="frsf")._supxlabel.get_text()  # type: ignore[attr-defined]


def test_what_is_not_there_is_one_line() -> None:
    with pytest.raises(UserError, match="add the key `why`"):
        drawn(records().query("attack == 'pgd'"))
    with pytest.raises(UserError, match="for rule 'fa'"):
        drawn(records(), rule="fa")


def test_it_is_written_in_all_forms(tmp_path: Path) -> None:
    write_figure(why.FIGURE, records(), Settings(), tmp_path / "why")
    assert {path.suffix for path in tmp_path.iterdir()} == {".pdf", ".svg", ".png"}
