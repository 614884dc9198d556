"""Networks against attackers: the numbers by hand, the order of columns, and what is refused."""

from typing import Any

import numpy as np
import pandas as pd
import pytest

from creditflow.core import plugins
from creditflow.core.errors import UserError
from creditflow.core.settings import parse
from creditflow.reporting.exact_rules import is_exact, with_feedback
from creditflow.reporting.figure import Figure
from creditflow.reporting.matrices import condition_order
from creditflow.reporting.names import display
from creditflow.reporting.outcomes import COLUMNS, accuracy_matrix
from creditflow.reporting.rules import rule_order
from outcome_records import ACCURACIES, frame, gradient_records, record, transfer_records

KINDS = ("exact", "feedback", "through")


def chosen(kind: str, name: str, **values: Any) -> Any:
    """Returns the checked settings of a table or figure."""
    return parse(plugins.settings_class(kind, name), values, name)


def by_hand() -> list[Any]:
    """Two networks and two seeds; clean images 0 to 5, attacked ones 1, 3, 4, 5 (exact) and 3, 4, 5 (fresh)."""
    bits = {
        ("bp", 0): ("110111", "0011", "100", "111"),
        ("bp", 1): ("111110", "1001", "011", "001"),
        ("frsf", 0): ("111111", "1111", "101", "011"),
        ("frsf", 1): ("111101", "0100", "110", "010"),
    }
    made = []
    for (rule, seed), texts in bits.items():
        clean, exact, first, second = (np.array([[letter == "1" for letter in text]]) for text in texts)
        made.append(record(rule, seed, "clean", "none", [None], clean, checks={"chance": 0.25}))
        attacks = (
            ("exact", exact, [1, 3, 4, 5]),
            ("through:frsf", first, [3, 4, 5]),
            ("through:frsf:2", second, [3, 4, 5]),
        )
        for gradient, correct, images in attacks:
            made.append(record(rule, seed, "pgd", gradient, [0.1], correct, outcomes={"example": np.array(images)}))
    frsf = np.array([[True, True, False, False]])
    for seed in (0, 1):
        made.append(record("frsf", seed, "pgd", "feedback", [0.1], frsf, outcomes={"example": np.array([1, 3, 4, 5])}))
    return made


def test_every_accuracy_is_that_of_the_common_images() -> None:
    rows = accuracy_matrix(frame(by_hand()), "pgd", 0.1, "test", KINDS)
    assert list(rows.columns) == COLUMNS
    values = {(row.rule, row.condition): row.value for row in rows.itertuples()}
    # Images 3, 4 and 5. BP is right on 111 and 110 without an attack, frSF on 111 and 101.
    assert values["bp", "none"] == pytest.approx(5 / 6)
    assert values["frsf", "none"] == pytest.approx(5 / 6)
    # BP's seed 1 is wrong on image 5 without an attack, so 001 under the attack counts as 000.
    assert values["bp", "exact"] == pytest.approx(2 / 6)
    assert values["frsf", "exact"] == pytest.approx((3 + 1) / 6)
    # Means of two draws: BP (100 and 111), (010 and 000); frSF (101 and 011), (100 and 000).
    assert values["bp", "through:frsf"] == pytest.approx((1 + 3 + 1 + 0) / 12)
    assert values["frsf", "through:frsf"] == pytest.approx((2 + 2 + 1 + 0) / 12)
    # BP is attacked through its own path once: by its exact gradient.
    assert values["bp", "feedback"] == values["bp", "exact"]
    assert values["frsf", "feedback"] == pytest.approx(2 / 6)
    assert set(rows.n_images) == {3}
    assert set(rows.n_seeds) == {2}
    assert set(rows.chance) == {0.25}
    assert set(rows.n_draws[rows.condition == "through:frsf"]) == {2}
    assert (rows.low <= rows.value).all()
    assert (rows.value <= rows.high).all()


def test_records_that_do_not_fit_together_are_refused() -> None:
    everything = by_hand()

    def message(records: list[Any], epsilon: float = 0.1, kinds: tuple[str, ...] = KINDS) -> str:
        with pytest.raises(UserError) as caught:
            accuracy_matrix(frame(records), "pgd", epsilon, "gradient_matrix", kinds)
        return str(caught.value)

    assert "pgd with the gradient exact attacked bp at the epsilons 0.1, not at 0.2" in message(everything, 0.2)
    without = [each for each in everything if (each.keys.attack, each.keys.seed) != ("clean", 1)]
    assert "bp has no clean record of seed 1" in message(without)
    assert "not all seeds of bp were attacked through the same draws" in message(
        [each for each in everything if (each.keys.gradient, each.keys.seed) != ("through:frsf:2", 1)]
    )
    apart = record("bp", 0, "pgd", "through:fa", [0.1], np.array([[True]]), outcomes={"example": np.array([7])})
    assert "no image in common" in message([*everything, apart])
    assert "it can't show pgd, whose gradient is 'exact'" in message(everything, kinds=("surrogate",))


def test_exact_rules_have_their_exact_rows_as_feedback_where_others_are_attacked_through_it() -> None:
    rows = pd.DataFrame(
        [
            ("a", "x", "bp", "pgd", "exact", 1),
            ("a", "x", "bp_matched_fa", "pgd", "exact", 2),
            ("a", "x", "fa", "pgd", "feedback", 3),
            ("a", "x", "bp", "apgd_ce", "exact", 4),  # nobody is attacked through feedback weights
            ("b", "x", "bp", "pgd", "exact", 5),
            ("c", "x", "bp", "pgd", "exact", 6),  # an old record of BP's feedback is there
            ("c", "x", "bp", "pgd", "feedback", 7),
            ("c", "x", "fa", "pgd", "feedback", 8),
        ],
        columns=["dataset", "backbone", "rule", "attack", "gradient", "value"],
    )
    added = with_feedback(rows).iloc[len(rows) :]
    assert list(added.value) == [1, 2]
    assert set(added.gradient) == {"feedback"}
    pd.testing.assert_frame_equal(with_feedback(rows).iloc[: len(rows)], rows)
    pd.testing.assert_frame_equal(with_feedback(with_feedback(rows)), with_feedback(rows))
    assert is_exact("bp")
    assert not is_exact("frsf")
    assert not is_exact("no_rule")


def test_gradients_have_an_order_and_names_that_people_read() -> None:
    names = ["through:fa", "none", "through:frsf:2", "feedback", "through:frsf", "exact", "through:usf"]
    assert condition_order(names) == [
        *("none", "exact", "feedback"),
        *("through:usf", "through:frsf", "through:frsf:2", "through:fa"),
    ]
    assert display("through:frsf") == "fresh frSF weights"
    assert display("through:frsf:2") == "fresh frSF weights, draw 2"
    assert display("surrogate:twin") == "from its twin"
    assert display("bp_matched_fa") == "BP, as accurate as FA"
    assert rule_order(["bp_matched_fa", "dfa", "fa", "bp"]) == ["bp", "fa", "bp_matched_fa", "dfa"]


@pytest.fixture(scope="module")
def gradients() -> pd.DataFrame:
    return frame(gradient_records())


@pytest.mark.parametrize(
    ("name", "column"), [("gradient_matrix", "Fresh FA weights"), ("transfer_matrix", "From its twin")]
)
def test_the_tables_show_every_number_with_its_interval(name: str, column: str, tmp_path: Any) -> None:
    outcomes = frame(gradient_records() if name == "gradient_matrix" else transfer_records())
    table, settings = plugins.load("table", name).TABLE, chosen("table", name, epsilon=0.1)
    assert plugins.declared("table", name, "source") == table.source == "outcomes"
    rows = table.select(outcomes, settings)
    table.write([outcomes], settings, "A caption.", tmp_path / name)
    text = (tmp_path / f"{name}.md").read_text(encoding="utf-8")
    for row in rows.itertuples():
        assert f"{100 * row.value:.1f} ({100 * row.low:.1f} to {100 * row.high:.1f})" in text
    for words in (column, "No attack", "LeNet-5 on Fashion-MNIST 5-9", "Chance is 20%", "x 3 seeds", "epsilon 0.1"):
        assert words in text
    np.testing.assert_allclose(pd.read_csv(tmp_path / f"{name}.csv").value, rows.value)
    both = pd.concat([outcomes, outcomes.assign(backbone="vgg16")])
    shown = table.show(table.select(both, settings), settings)
    assert list(shown.Backbone) == ["LeNet-5"] * 4 + ["VGG-16"] * 4


def test_the_heat_map_has_the_numbers_in_its_cells_and_a_title_that_is_true(gradients: pd.DataFrame) -> None:
    figure: Figure = plugins.load("figure", "gradient_matrix").FIGURE
    settings = chosen("figure", "gradient_matrix", epsilon=0.1)
    rows = accuracy_matrix(gradients, "pgd", 0.1, "test", KINDS)
    values = {(row.rule, row.condition): 100 * row.value for row in rows.itertuples()}
    columns = [["none"], ["exact", "feedback"], ["through:usf", "through:frsf", "through:fa"]]
    canvas = figure.draw(gradients, settings)
    for axes, conditions in zip(canvas.axes, columns, strict=True):
        texts = [text.get_text() for text in axes.texts]
        assert texts == [f"{values[rule, condition]:.0f}" for rule in ACCURACIES for condition in conditions]
    assert [label.get_text() for label in canvas.axes[0].get_yticklabels()] == ["BP", "uSF", "frSF", "FA"]
    title = " ".join(canvas.get_suptitle().split())
    assert title == (
        f"Accuracy of the BP networks under PGD is {values['bp', 'exact']:.0f}% if the attacker uses the exact"
        f" gradient, and {values['bp', 'through:fa']:.0f}% if it uses fresh FA weights"
    )
    without_fresh = gradients[~gradients.gradient.str.startswith("through")]
    assert len(figure.draw(without_fresh, settings).axes) == 2


def test_the_heat_map_of_transfer_has_a_column_for_each_surrogate() -> None:
    figure: Figure = plugins.load("figure", "transfer_matrix").FIGURE
    canvas = figure.draw(frame(transfer_records()), chosen("figure", "transfer_matrix", epsilon=0.1))
    labels = [[label.get_text().split("\n")[0] for label in axes.get_xticklabels()] for axes in canvas.axes]
    assert labels == [["no"], ["its twin", "BP of"]]
    with pytest.raises(UserError, match="transfer_matrix: choose one backbone of lenet5, vgg16"):
        both = pd.concat([frame(transfer_records()), frame(transfer_records()).assign(backbone="vgg16")])
        figure.draw(both, chosen("figure", "transfer_matrix", epsilon=0.1))
