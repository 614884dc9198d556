"""What rules cost, against counts made by hand."""

from pathlib import Path

import pandas as pd
import pytest

from creditflow.core import plugins
from creditflow.core.settings import parse
from creditflow.populations.cost import flops_per_image
from creditflow.populations.network import Network
from creditflow.populations.rule import get_update_rule
from creditflow.populations.settings import PopulationSettings
from creditflow.reporting.collection import read_frames
from creditflow.workflow.loading import load_experiments
from creditflow.workflow.sources import source_files
from helpers import ROOT
from reporting.test_sal_reporting import trained

NETWORK = Network((784, *[256] * 5, 10), "tanh")
#: Multiplications of a pass up, a million, as in the paper's network.
UP = 784 * 256 + 4 * 256**2 + 256 * 10


def cost(rule: str, **own: object) -> tuple[float, float]:
    values = {
        "epochs": 1,
        "batch_size": 128,
        "hidden": [256] * 5,
        "activation": "tanh",
        "loss": "cross_entropy",
        "rule": own,
    }
    settings = parse(PopulationSettings, values, "settings")
    made = get_update_rule(rule)
    return flops_per_image(made, parse(plugins.settings_class("update_rule", rule), own, rule), NETWORK, settings)


def test_backpropagation_is_a_pass_up_a_pass_down_and_an_outer_product() -> None:
    step, feedback = cost("bp")
    assert step == 2 * (UP + (UP - 784 * 256) + UP) and feedback == 0
    assert step == 2 * 1_195_520  # as counted from the authors' code, too


def test_direct_feedback_costs_a_little_and_the_difference_loss_costs_passes() -> None:
    noise = {"step_size": 0.1, "sigma": 0.1}
    assert cost("dfa_targets")[0] == 2 * (UP + 5 * 10 * 256 + UP)
    step, feedback = cost("ddtp_linear", **noise)
    # Noise of layer i passes the layers above it; then each Q_i takes it down, and learns.
    pushed = sum((4 - below) * 256**2 for below in range(5)) + 5 * 2560
    assert feedback == 2 * (UP + pushed + 2 * 5 * 2560)
    assert step == feedback + 2 * (5 * 2560 + UP)
    assert cost("ddtp_rhl", **noise)[0] > cost("dtpdrl", **noise)[0] > step > cost("bp")[0]


def test_the_table_has_a_row_for_each_population(tmp_path: Path) -> None:
    (frame,) = read_frames([trained(tmp_path, "mlp_200", (0.02,))], "populations")
    frame.iloc[0].saved.content["run"] = {"wall_time_s": 8.0, "epochs_of_this_run": 2}
    table = plugins.load("table", "population_costs").TABLE
    table.write(
        [frame], parse(plugins.settings_class("table", "population_costs"), {}, "table"), "Costs.", tmp_path / "costs"
    )
    rows = pd.read_csv(tmp_path / "costs.csv")
    assert rows.seconds.tolist() == [2.0] and rows.rule.tolist() == ["sal"]
    assert rows.total[0] == pytest.approx(rows.step[0])
    experiment = load_experiments(ROOT / "config/experiments")["sal_fashion"]
    files = source_files(experiment, Path("results"), "table", "population_costs")
    assert [path.stem for path in files] == ["bp", "fa", "wm", "kp", "sal"]
