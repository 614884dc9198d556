"""SAL's figures that show populations themselves: what they draw is what training left behind."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from creditflow.core import plugins
from creditflow.core.errors import UserError
from creditflow.core.settings import parse
from creditflow.models.build import ModelSpec
from creditflow.populations.images import FlatImages
from creditflow.populations.population import Member
from creditflow.populations.rule import get_update_rule
from creditflow.populations.settings import PopulationSettings
from creditflow.populations.storage import save_population
from creditflow.populations.training import train_population
from creditflow.records.record import Keys, Metric, Record
from creditflow.reporting.collection import long_form, read_frames
from creditflow.reporting.figure import write_figure
from creditflow.reporting.figures.sal_figure3 import matrices
from creditflow.reporting.figures.sal_figure5 import grid
from creditflow.workflow.experiments import Experiment
from creditflow.workflow.loading import load_experiments
from creditflow.workflow.sources import source_files
from helpers import ROOT

SETTINGS = {
    "epochs": 2,
    "batch_size": 16,
    "hidden": [10, 8],
    "loss": "mse",
    "initialisation": "gaussian",
    "biases": False,
    "validation_images": 30,
    "rule": {"downstream": [12, 9], "scale": 0.3},
}


def chosen(kind: str, name: str, **values: Any) -> Any:
    """Returns the checked settings of a table or figure."""
    return parse(plugins.settings_class(kind, name), values, name)


def trained(folder: Path, variant: str, rates: tuple[float, ...]) -> Path:
    """Trains two seeds of SAL on random pictures and saves them where the workflow would."""
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (120, 16), generator=generator, dtype=torch.uint8)
    data = FlatImages(pixels, torch.randint(0, 3, (120,), generator=generator), 3)
    settings = parse(PopulationSettings, SETTINGS, "settings")
    members = [Member(seed, rate) for rate in rates for seed in (3, 4)]
    population = train_population(get_update_rule("sal"), members, data, data, settings)
    path = folder / "population/digits" / variant / "sal.safetensors"
    path.parent.mkdir(parents=True)
    spec = ModelSpec("mlp", (1, 4, 4), 3, (0.0,), (1.0,), {"hidden": [10, 8], "activation": "relu"})
    facts: dict[str, Any] = {"settings": {"settings": SETTINGS}, "measured_images": settings.measured_images(600, 120)}
    save_population(path, population, rule="sal", spec=spec.to_json(), **facts)
    return path


def sentence(canvas: Any) -> str:
    """What stands below a figure."""
    return str(canvas.get_supxlabel())


def test_figure_3_shows_the_start_as_it_was_drawn_and_the_end_as_it_was_saved(tmp_path: Path) -> None:
    still, learned = trained(tmp_path, "still", (1e-30,)), trained(tmp_path, "learned", (0.02,))
    for path, moved in ((still, False), (learned, True)):
        (frame,) = read_frames([path], "populations")
        for layer in (1, 2):
            found = matrices(frame.iloc[0], layer)
            assert found["v_bar"][0].shape == ((10, 12), (8, 9))[layer - 1]
            assert found["weight"][0].shape == ((10, 16), (8, 10))[layer - 1]
            for before, after in found.values():
                assert bool((before - after).abs().max() > 1e-4) == moved
    figure = plugins.load("figure", "sal_figure3").FIGURE
    settings = chosen("figure", "sal_figure3", **{"variants": {"SAL": "learned"}})
    write_figure(figure, frame, settings, tmp_path / "three")
    assert (tmp_path / "three.png").stat().st_size > 5000
    with pytest.raises(UserError, match="learned has 2 hidden layers, no layer 3"):
        figure.draw(frame, chosen("figure", "sal_figure3", **{"variants": {"SAL": "learned"}, "layer": 3}))
    with pytest.raises(UserError, match="variants must name one population"):
        chosen("figure", "sal_figure3")


def test_figure_5_has_every_rates_mean_over_seeds_and_no_number_where_one_diverged(tmp_path: Path) -> None:
    paths = [trained(tmp_path, "low", (0.001, 0.02)), trained(tmp_path, "high", (0.02, 1e6))]
    (frame,) = read_frames(paths, "populations")
    found = grid(frame, {"a": "low", "b": "high"})
    assert list(found.columns) == [0.001, 0.02, 1e6]
    two = frame[(frame.backbone == "low") & (frame.learning_rate == 0.02)].best_score
    assert len(two) == 2 and found.loc["a", 0.02] == pytest.approx(two.mean())
    assert np.isnan(found.loc["b", 1e6]) and np.isnan(found.loc["b", 0.001])
    figure = plugins.load("figure", "sal_figure5").FIGURE
    settings = chosen("figure", "sal_figure5", **{"variants": {"a": "low", "b": "high"}})
    write_figure(figure, frame, settings, tmp_path / "five")
    assert (tmp_path / "five.png").stat().st_size > 5000
    assert "In 1 of 2 rows the best rate is the lowest or the highest tried." in sentence(figure.draw(frame, settings))
    with pytest.raises(UserError, match="every network diverged"):
        grid(frame[frame.learning_rate == 1e6], {"b": "high"})


def test_the_circuit_is_drawn_by_epoch(tmp_path: Path) -> None:
    names = ("update_angle", "v_cosine", "effective_rank", "h_mean_eigenvalue", "h_largest_eigenvalue")
    records = []
    for rule, angle in (("fa", 80.0), ("sal", 60.0)):
        metrics = tuple(Metric(name, None, angle / epoch, 40, epoch) for name in names for epoch in (1, 2))
        keys = Keys("e", "classification", "digits", "v", rule, 0, "clean", "none")
        records.append(Record(Path("r.json"), keys, metrics, {}, {}))
    figure = plugins.load("figure", "sal_alignment").FIGURE
    frame = long_form(records)
    canvas = figure.draw(frame, chosen("figure", "sal_alignment"))
    assert [list(line.get_ydata()) for line in canvas.axes[0].get_lines()][:2] == [[80.0, 40.0], [60.0, 30.0]]
    with pytest.raises(UserError, match="no update angle of 'sal'"):
        figure.draw(frame[frame.rule == "fa"], chosen("figure", "sal_alignment"))
    write_figure(figure, frame, chosen("figure", "sal_alignment"), tmp_path / "s")
    assert (tmp_path / "s.png").stat().st_size > 5000


def test_the_modulation_is_drawn_by_epoch_and_scale(tmp_path: Path) -> None:
    records = []
    for seed, shift in ((0, 0.0), (1, 0.1)):
        metrics = [
            Metric(name, None, value + shift + epoch / 10, 64, epoch)
            for name, value in (
                ("modulation_loss_scale0.1", 0.5),
                ("modulation_loss_scale1", 2.0),
                ("modulation_helps_scale0.1", 0.7),
                ("modulation_helps_scale1", 0.2),
                ("modulation_cosine", 0.3),
            )
            for epoch in (1, 2)
        ]
        keys = Keys("e", "classification", "fashion_mnist", "mlp_200", "sal", seed, "clean", "none")
        records.append(Record(Path("r.json"), keys, tuple(metrics), {}, {}))
    frame, figure = long_form(records), plugins.load("figure", "sal_modulation").FIGURE
    canvas = figure.draw(frame, chosen("figure", "sal_modulation"))
    losses, helps, cosine = canvas.axes
    lines = {str(line.get_label()): list(line.get_ydata()) for line in losses.get_lines()}
    assert lines["s = 0.1"] == pytest.approx([0.65, 0.75]) and lines["s = 1"] == pytest.approx([2.15, 2.25])
    assert list(helps.get_lines()[0].get_ydata()) == pytest.approx([0.85, 0.95])
    assert list(cosine.get_lines()[0].get_ydata()) == pytest.approx([0.45, 0.55])
    assert "64 training images, 2 seeds" in sentence(canvas)
    write_figure(figure, frame, chosen("figure", "sal_modulation"), tmp_path / "m")
    assert (tmp_path / "m.png").stat().st_size > 5000
    with pytest.raises(UserError, match="sal_modulation: no modulation of 'sal'; set `modulation`"):
        figure.draw(frame[frame.metric == "modulation_cosine"], chosen("figure", "sal_modulation"))


@pytest.fixture(scope="module")
def experiment() -> Experiment:
    return load_experiments(ROOT / "config/experiments")["sal_fashion_circuit"]


def test_a_figure_of_populations_names_its_files(experiment: Experiment) -> None:
    (path,) = source_files(experiment, Path("results"), "figure", "sal_figure3")
    assert path.parts[:3] == ("results", "sal_fashion_circuit", "population") and path.name == "sal.safetensors"
    assert len(source_files(experiment, Path("results"), "figure", "sal_figure5")) > 2


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("sal_figure5", {}, "variants: name populations of this experiment"),
        ("sal_figure3", {}, "variants must name one population"),
        ("sal_figure3", {"variants": {"a": "mlp_20"}}, "unknown variant 'mlp_20'; did you mean 'mlp_200'"),
        ("sal_figure3", {"variants": {"a": "mlp_200"}, "rule": "dfa"}, "has no population of rule 'dfa'"),
        ("sal_figure3", {"variants": {"a": "mlp_200"}, "dataset": "mnist"}, "on dataset 'mnist'"),
    ],
)
def test_a_figure_of_populations_that_are_not_there_says_so(
    experiment: Experiment, name: str, settings: dict[str, Any], message: str
) -> None:
    experiment.keys["figures"][name] = settings
    with pytest.raises(UserError, match=message):
        source_files(experiment, Path("results"), "figure", name)


def test_what_was_measured_is_listed_at_the_last_epoch_with_the_rate(tmp_path: Path) -> None:
    records = []
    for rule, seed, shift in (("sal", 0, 0.0), ("sal", 1, 0.2), ("bp", 0, 0.5)):
        rates = [("learning_rate", 0.1), ("lowest_rate", 0.05), ("highest_rate", 0.1)]
        metrics = [Metric("theorem_cosine", None, shift + epoch / 10, 64, epoch) for epoch in (1, 2) if rule == "sal"]
        metrics += [Metric("train_accuracy", None, 0.5 + epoch / 10, 64, epoch) for epoch in (1, 2)]
        metrics += [Metric(name, None, value, 64, None) for name, value in rates[: 3 if rule == "sal" else 1]]
        keys = Keys("e", "classification", "fashion_mnist", "mlp_200", rule, seed, "clean", "none")
        records.append(Record(Path("r.json"), keys, tuple(metrics), {}, {}))
    table, frame = plugins.load("table", "training_measures").TABLE, long_form(records)
    settings = chosen("table", "training_measures", metrics={"Theorem 1": "theorem_cosine"})
    table.write([frame], settings, "Measures.", tmp_path / "t")
    bp, sal = (line.split("|")[1:-1] for line in (tmp_path / "t.md").read_text(encoding="utf-8").splitlines()[2:4])
    assert [cell.strip() for cell in bp] == ["Fashion-MNIST", "3 x 200", "BP", "0.1", "-"]
    assert [cell.strip() for cell in sal] == ["Fashion-MNIST", "3 x 200", "SAL", "0.1 (highest tried)", "0.3 ± 0.14"]
    rows = pd.read_csv(tmp_path / "t.csv").set_index(["rule", "metric"])
    cosine = rows.loc[("sal", "theorem_cosine")]
    assert (cosine["least"], cosine["greatest"], cosine["epoch"], cosine["n_seeds"]) == (0.2, 0.4, 2, 2)
    assert rows.loc[("bp", "train_accuracy"), "value"] == pytest.approx(0.7)
    with pytest.raises(UserError, match="no measure angle was recorded; there are highest_rate, learning_rate, lowest"):
        table.select(frame, chosen("table", "training_measures", metrics={"Angle": "angle"}))
