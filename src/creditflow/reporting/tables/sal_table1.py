"""Accuracy in percent, mean and standard deviation over seeds: on training images, while the chosen epoch went over
them, and on test images. Beside it stands the SAL paper's Table 1. The paper does not say on which images its accuracy
was measured. The column beside it says where it lies: above both of ours, below both, or between them. A chosen
learning rate that is the lowest or the highest tried may not be the best one that there is."""

import pandas as pd

from creditflow.core.errors import UserError
from creditflow.populations.rates import edge_of_grid, with_edge
from creditflow.reporting.listing import Listing
from creditflow.reporting.names import display, span
from creditflow.reporting.rules import by_rule_order
from creditflow.reporting.tables.settings.sal_table1 import Settings


def select(records: pd.DataFrame, published: pd.DataFrame, settings: Settings) -> pd.DataFrame:
    """Returns a row per dataset and rule."""
    clean = records[records.attack == "clean"]
    variants = sorted(set(clean.backbone))
    variant = settings.variant or variants[0]
    if variant not in variants or (settings.variant is None and len(variants) > 1):
        raise UserError(f"sal_table1: choose one variant of {', '.join(variants)} in the table's settings")
    accuracies = _of_each_seed(clean[clean.backbone == variant])
    frame = accuracies.groupby(["dataset", "rule"], as_index=False).agg(
        train=("train", "mean"),
        train_sd=("train", "std"),
        test=("test", "mean"),
        test_sd=("test", "std"),
        n_seeds=("seed", "size"),
        n_images=("n", "max"),
    )
    numbers = published[["dataset", "rule", "value", "spread"]].rename(
        columns={"value": "published", "spread": "published_sd"}
    )
    frame = frame.merge(numbers, how="left", on=["dataset", "rule"])
    frame = frame.merge(_chosen_rates(clean[clean.backbone == variant]), how="left", on=["dataset", "rule"])
    ours = frame[["train", "test"]]
    places = {"above both": frame.published > ours.max(axis=1), "below both": frame.published < ours.min(axis=1)}
    place = pd.Series("between them", frame.index).where(frame.published.notna(), "-")
    for words, holds in places.items():
        place = place.mask(holds, words)
    return frame.assign(place=place)


def _of_each_seed(rows: pd.DataFrame) -> pd.DataFrame:
    """Returns train and test accuracy of each dataset, rule and seed."""
    key = ["dataset", "rule", "seed"]
    test = rows[(rows.metric == "accuracy") & rows.epoch.isna()][[*key, "value", "n"]].rename(columns={"value": "test"})
    chosen = (
        rows[rows.metric == "chosen_epoch"][[*key, "value"]]
        .rename(columns={"value": "epoch"})
        .astype({"epoch": "Int64"})
    )
    train = rows[rows.metric == "train_accuracy"][[*key, "epoch", "value"]].rename(columns={"value": "train"})
    return test.merge(chosen, on=key).merge(train, on=[*key, "epoch"])


def _chosen_rates(rows: pd.DataFrame) -> pd.DataFrame:
    """Returns the learning rate of each dataset and rule, and whether it is the lowest or the highest tried (`edge`).

    `edge` is empty for one that lies between others, and where only one was tried.
    """
    names = ["learning_rate", "lowest_rate", "highest_rate"]
    chosen = rows[rows.metric.isin(names)].pivot_table(index=["dataset", "rule"], columns="metric", values="value")
    chosen = chosen.reindex(columns=names)
    ends = [chosen[name].fillna(chosen.learning_rate) for name in names[1:]]  # without a choice there are none
    edges = [edge_of_grid(rate, tried) for rate, *tried in zip(chosen.learning_rate, *ends, strict=True)]
    return chosen.assign(edge=edges)[["learning_rate", "edge"]].reset_index()


def show(rows: pd.DataFrame, settings: Settings) -> pd.DataFrame:
    """Returns the texts, rules in the usual order."""
    rows = by_rule_order(rows).sort_values("dataset", kind="stable")

    def texts(name: str) -> list[str]:
        return [_text(value, spread) for value, spread in zip(rows[name], rows[f"{name}_sd"], strict=True)]

    names = {"Dataset": rows.dataset.map(display), "Rule": rows.rule.map(display)}
    numbers = {
        "Ours, train": texts("train"),
        "Ours, test": texts("test"),
        "Published": texts("published"),
        "Published lies": rows.place,
        "Learning rate": [with_edge(rate, edge) for rate, edge in zip(rows.learning_rate, rows.edge, strict=True)],
    }
    return pd.DataFrame(names | numbers)


def _text(value: float, spread: float) -> str:
    if value != value:
        return "-"
    return f"{100 * value:.1f}" + (f" ± {100 * spread:.2f}" if spread == spread else "")


def note(rows: pd.DataFrame) -> str:
    """Says what the numbers rest on."""
    return f"Ours: {span(rows.n_seeds)} seeds, {rows.n_images.max()} test images."


TABLE = Listing(select=select, show=show, note=note, source="records published", published="sal")
