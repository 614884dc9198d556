"""Settings of populations: importable without torch, complete or in parts, with one line for every contradiction."""

import subprocess
import sys

import pytest

from creditflow.core import plugins
from creditflow.core.errors import UserError
from creditflow.core.parts import part_of
from creditflow.core.settings import parse, plain
from creditflow.populations.settings import PopulationSettings
from helpers import ROOT

LEAST = {"epochs": 1, "batch_size": 8, "hidden": [4]}
ADVERSARY = {"epsilon": 0.1}


def test_settings_of_populations_and_of_all_update_rules_load_without_torch() -> None:
    code = (
        "import sys; from creditflow.core import plugins; import creditflow.populations.settings;"
        " import creditflow.populations.nullspace_settings;"
        " [plugins.settings_class('update_rule', name) for name in plugins.names('update_rule')];"
        " assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env={"PYTHONPATH": str(ROOT / "src")})


def test_plain_settings_are_the_settings_again() -> None:
    settings = parse(PopulationSettings, LEAST | {"adversary": ADVERSARY, "optimizer": {"kind": "adam"}}, "here")
    assert parse(PopulationSettings, plain(settings), "here") == settings
    assert (settings.optimizer.kind, settings.optimizer.beta1) == ("adam", 0.9)
    assert settings.adversary is not None and settings.adversary.steps == 40


def test_a_part_checks_each_key_and_leaves_the_rest_to_the_whole() -> None:
    part = part_of(PopulationSettings)
    given = {"adversary": {"steps": 3}, "select": "adversarial", "optimizer": {"drop_epochs": [2]}}
    assert parse(part, given, "here").model_dump(exclude_unset=True) == given | {"optimizer": {"drop_epochs": (2,)}}
    for values, message in (
        ({"epochs": 0}, "here: epochs must be at least 1, not 0"),
        ({"epochs": None}, "here: epochs must be an integer, not None"),
        ({"hiden": [3]}, "here: unknown key 'hiden'; did you mean 'hidden'?"),
        ({"adversary": {"step": 0}}, "here: adversary.step must be above 0, not 0"),
        ({"feedback_optimizer": {"kid": "sgd"}}, "here: feedback_optimizer: unknown key 'kid'; did you mean 'kind'?"),
    ):
        with pytest.raises(UserError) as caught:
            parse(part, values, "here")
        assert str(caught.value) == message


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"validation_images": 0}, "validation_images is 0, but something is to be selected; hold images out"),
        ({"select": "last", "patience": 3}, "patience needs a selection, which select: last does not make"),
        ({"select_on": "test", "curve_images": 5, "adversary": ADVERSARY}, "curve_images are test images"),
        ({"select": "adversarial"}, "need an adversary; add adversary"),
        ({"adversarial_training": True}, "need an adversary; add adversary"),
        ({"curve_images": 5}, "need an adversary; add adversary"),
        ({"adversary": ADVERSARY, "pixel_mean": 0.3}, r"knows pixels in \[0, 1\] only; leave pixel_mean"),
        ({"adversary": ADVERSARY, "pixel_deviation": 0.3}, r"knows pixels in \[0, 1\] only; leave pixel_mean"),
        ({"convolutions": [3], "dropout": 0.1}, "need fully connected layers"),
        ({"convolutions": [3], "adversary": ADVERSARY}, "need fully connected layers"),
        ({"trained_layers": [3]}, "trained_layers must name some of the layers 1 to 2"),
        ({"layer_angles": True}, "layer_angles needs angle_images"),
        ({"feedback_learning_rate": 0.1}, "feedback_learning_rate needs a feedback_optimizer"),
        ({"dropout": 1}, "dropout must be below 1, not 1"),
        ({"epochs": 10**9}, "epochs must be at most 1000000, not 1000000000"),
        ({"optimizer": {"layer_rates": [1, 0]}}, "optimizer.layer_rates.1 must be above 0, not 0"),
        ({"training_adversary": {"steps": 3}}, "training_adversary: epsilon is missing"),
    ],
)
def test_contradictions_and_nonsense_end_in_one_line(changes: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        parse(PopulationSettings, LEAST | changes, "here")
    assert "\n" not in str(caught.value)


def test_rules_without_a_settings_file_take_no_settings() -> None:
    with_settings = {
        name for name in plugins.names("update_rule") if plugins.settings_class("update_rule", name).model_fields
    }
    assert with_settings == set(plugins.names("update_rule")) - {"bp"}
