"""What is said of a learning rate that was chosen from several."""

import pytest

from creditflow.populations.rates import edge_of_grid, in_words


@pytest.mark.parametrize(
    ("rate", "tried", "edge", "words"),
    [
        (0.1, [0.01, 0.1], "highest", "0.1, the highest of 2 tried"),
        (0.01, [0.1, 0.01, 0.01, 1.0], "lowest", "0.01, the lowest of 3 tried"),
        (0.1, [0.01, 0.1, 1.0], "", "0.1 of 3 tried"),
        (0.1, [0.1], "", "0.1"),
        (0.1, [0.1, 0.1], "", "0.1"),
    ],
)
def test_the_edge_of_a_grid_is_named(rate: float, tried: list[float], edge: str, words: str) -> None:
    assert edge_of_grid(rate, tried) == edge
    assert in_words(rate, tried) == words
