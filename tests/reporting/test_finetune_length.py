"""The figure `finetune_length`: where its points lie, and what it refuses."""

from pathlib import Path

import pandas as pd
import pytest
from matplotlib.figure import Figure as Canvas

from creditflow.core.errors import UserError
from creditflow.reporting.figure import write_figure
from creditflow.reporting.figures import finetune_length
from creditflow.reporting.figures.settings.finetune_length import Settings

LENGTHS = {"none_at_all": 0, "short": 1, "long": 30}


def records(rules: tuple[str, ...] = ("bp", "frsf"), lengths: dict[str, int] = LENGTHS) -> pd.DataFrame:
    """Rows of `records.parquet`: accuracies of two seeds, which rise with the length by a hundredth an epoch."""
    rows = []
    for dataset, length in lengths.items():
        for rule in rules:
            for seed in (0, 1):
                keys = {"dataset": dataset, "backbone": "lenet5", "rule": rule, "seed": seed, "n": 200}
                clean = keys | {"attack": "clean", "gradient": "none", "epsilon": None}
                rows += [
                    clean | {"metric": "test_accuracy", "epoch": epoch, "value": 0.1} for epoch in range(1, length + 1)
                ]
                value = 0.5 + length / 100 + seed / 10
                rows.append(clean | {"metric": "accuracy", "epoch": None, "value": value})
                for gradient in ("exact",) if rule == "bp" else ("exact", "feedback"):
                    attacked = keys | {"attack": "pgd", "gradient": gradient, "metric": "robust_accuracy"}
                    less = 0.4 if gradient == "exact" else 0.2
                    rows += [attacked | {"epsilon": size, "value": value - less} for size in (0.05, 0.1)]
    return pd.DataFrame(rows).assign(epoch=lambda frame: frame.epoch.astype(float))


def drawn(frame: pd.DataFrame, **settings: object) -> Canvas:
    return finetune_length.draw(frame, Settings(**({"epsilon": 0.1} | settings)))  # type: ignore[arg-type]


def test_points_are_means_of_seeds_against_the_epochs_that_were_trained(tmp_path: Path) -> None:
    canvas = drawn(records())
    clean, exact, feedback = canvas.axes
    for axes, less in ((clean, 0), (exact, 40), (feedback, 20)):
        bp, frsf = axes.lines
        assert list(frsf.get_xdata()) == [0, 1, 2]
        assert list(frsf.get_ydata()) == pytest.approx([55 - less, 56 - less, 85 - less])
        of_bp = 0 if axes is clean else 40  # under backpropagation V is W
        assert list(bp.get_ydata()) == pytest.approx([55 - of_bp, 56 - of_bp, 85 - of_bp])
        assert [text.get_text() for text in axes.get_xticklabels()] == ["0", "1", "30"]
    write_figure(finetune_length.FIGURE, records(), Settings(epsilon=0.1), tmp_path / "figure")
    assert (tmp_path / "figure.png").stat().st_size > 10_000


@pytest.mark.parametrize(
    ("frame", "settings", "message"),
    [
        (records(lengths={"a": 2, "b": 2}), {}, r"do not differ in the length of fine-tuning \(a 2, b 2 epochs\)"),
        (records(lengths={"a": 2}), {}, r"do not differ .* give each its own `epochs` in `finetune\.overrides`"),
        (records(), {"epsilon": 0.3}, r"no record of pgd at epsilon 0\.3 through the gradient exact"),
        (records(), {"attack": "fgsm"}, r"no record of fgsm at epsilon 0\.1"),
        (records(("bp",)), {}, r"no record of pgd at epsilon 0\.1 through the gradient feedback"),
        (records(), {"backbone": "vgg16"}, r"no record of networks for backbone 'vgg16'"),
    ],
)
def test_what_cannot_be_drawn_is_one_line(frame: pd.DataFrame, settings: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=f"^finetune_length: .*{message}"):
        drawn(frame, **settings)
