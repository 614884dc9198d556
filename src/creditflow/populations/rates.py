"""What can be said of a learning rate that was chosen from several."""

from collections.abc import Sequence


def edge_of_grid(rate: float, tried: Sequence[float]) -> str:
    """Returns "lowest" or "highest" for a chosen rate on the edge of those that were tried.

    Beyond the edge another rate may be better. The text is empty for a rate between others, and where only one was
    tried, so that nothing was chosen. Rates at which a member diverged count as tried: a grid that ends where training
    breaks is wide enough on that side.
    """
    if len(set(tried)) < 2 or min(tried) < rate < max(tried):
        return ""
    return "lowest" if rate <= min(tried) else "highest"


def with_edge(rate: float, edge: str) -> str:
    """Returns a chosen rate for a table, and its edge in brackets if it has one; a dash if none was recorded."""
    if rate != rate:
        return "-"
    return f"{rate:g} ({edge} tried)" if edge else f"{rate:g}"


def in_words(rate: float, tried: Sequence[float]) -> str:
    """Returns a chosen rate, the number of rates that were tried, and whether the rate is on the edge of these."""
    edge, n = edge_of_grid(rate, tried), len(set(tried))
    if n < 2:
        return f"{rate:g}"
    return f"{rate:g}, the {edge} of {n} tried" if edge else f"{rate:g} of {n} tried"
