"""What provokes the promised refusals of tables, figures and exports; see test_promises.py."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from creditflow.core.errors import UserError
from creditflow.core.files import json_bytes, seal, write_parquet
from creditflow.records.record import Keys, Metric, Record
from creditflow.reporting import (
    collection,
    export,
    export_seal,
    figure,
    forms,
    outcomes,
    published,
    readme,
    results_page,
    table,
)
from creditflow.reporting.listing import Listing
from creditflow.reporting.tables import compare
from creditflow.reporting.tables.settings.compare import Settings
from faults.promised_data import Promised, written

BIOTORCH = Path(published.__file__).parents[3] / "config/published/biotorch.csv"
KEYS = Keys("e", "classification", "d", "b", "bp", 0, "fgsm", "exact")


def a_record(images: range = range(4), *, attack: str = "fgsm", gradient: str = "exact", seed: int = 0) -> Record:
    """Returns a record of four images at epsilon 0.1, or of the accuracy without an attack."""
    epsilon, metric = (None, "accuracy") if attack == "clean" else (0.1, "robust_accuracy")
    keys = Keys(**(vars(KEYS) | {"attack": attack, "gradient": gradient, "seed": seed}))
    found = {"correct": np.ones((1, len(images)), bool), "example": np.array(images)}
    content: dict[str, Any] = {"settings": {"norm": "linf"}, "checks": {}}
    return Record(Path(f"{attack}{seed}.json"), keys, (Metric(metric, epsilon, 1.0, len(images)),), found, content)


def frame_of(*records: Record) -> pd.DataFrame:
    return pd.DataFrame([vars(record.keys) | {"record": record} for record in records])


def matrix(*records: Record, epsilon: float = 0.1) -> object:
    return outcomes.accuracy_matrix(frame_of(*records), "fgsm", epsilon, "table x", ["exact"])


def a_frame(path: Path, columns: list[str], **attrs: Any) -> Path:
    frame = pd.DataFrame({name: ["x"] for name in columns})
    frame.attrs.update(attrs)
    write_parquet(path, frame)
    return path


def a_form(folder: Path, **change: Any) -> Path:
    """Writes the forms of a table, and its seal; `change` edits the seal, which is made again."""
    stem = folder / "table1"
    for suffix in forms.TABLE:
        written(stem.with_suffix(suffix))
    forms.write_seal(stem, forms.TABLE, {"experiment": "e"}, [])
    if change:
        content = {"format": 1, "identity": {"experiment": "e"}, "frames": [], "sha256": {}} | change
        written(stem.with_suffix(".json"), json_bytes(seal(content)))
    return stem


def an_export(folder: Path, **change: Any) -> bool:
    path = written(folder / "t.csv")
    export_seal.write_export_seal(folder, {"experiment": folder.name} | change)
    written(folder / "t.csv", b"other" if not change else b"nonsense")
    return export_seal.check_exported(path, folder)


def table_of_published(folder: Path, *lines: str) -> object:
    header = BIOTORCH.read_text(encoding="utf-8").splitlines()[0]
    return published.read_published(written(folder / "p.csv", "\n".join([header, *lines])))


def chosen(datasets: pd.Series, wanted: str | None) -> object:
    return figure.only(pd.DataFrame({"dataset": datasets}), "dataset", wanted, "figure2", "accuracy")


def compared(**keys: Any) -> object:
    summary = pd.DataFrame({"dataset": ["mine"], "backbone": ["b"], "rule": ["bp"], "attack": ["clean"]}).assign(
        metric="accuracy", epsilon=np.nan, norm="", value=1.0, low=1.0, high=1.0, n_images=1, n_seeds=1, interval=""
    )
    return compare.select(summary, published.read_published(BIOTORCH), Settings(**keys))


NOTHING = Listing(lambda frame, settings: frame.iloc[:0], lambda rows, settings: rows, lambda rows: "")
SUMMARY = pd.DataFrame({"attack": ["fgsm"], "metric": ["robust_accuracy"], "epsilon": [0.1]})

REPORTING: dict[str, Promised] = {
    "reporting.collection.summarize": (
        UserError,
        [lambda f: collection.summarize([a_record(), a_record(range(1, 5), seed=1)])],
    ),
    "reporting.collection.read_frames": (
        UserError,
        [
            lambda f: collection.read_frames([], "summary"),
            lambda f: collection.read_frames([f / "absent"], "summary", "e"),
        ],
    ),
    "reporting.collection.read_frame": (
        UserError,
        [
            lambda f: collection.read_frame(f / "absent", "records"),
            lambda f: collection.read_frame(written(f / "x"), "records"),
            lambda f: collection.read_frame(a_frame(f / "x", ["a"]), "records"),
            lambda f: collection.read_frame(
                a_frame(f / "x", collection.RECORD_COLUMNS, identity={"experiment": "a"}),
                "records",
                {"experiment": "b"},
            ),
        ],
    ),
    "reporting.export.provenance": (UserError, [lambda f: export.provenance([a_record()])]),
    "reporting.export.trained": (
        UserError,
        [
            lambda f: export.trained([written(f / "x.json")]),
            lambda f: export.trained([written(f / "x.json", json_bytes(seal({"provenance": {}})))]),
        ],
    ),
    "reporting.export_seal.check_exported": (UserError, [an_export, lambda f: an_export(f, experiment="another")]),
    "reporting.figure.only": (
        UserError,
        [
            lambda f: chosen(pd.Series(["a", "b"]), None),
            lambda f: chosen(pd.Series(["a", "b"]), "c"),
            lambda f: chosen(pd.Series([], dtype=str), None),
        ],
    ),
    "reporting.forms.check_forms": (
        UserError,
        [
            lambda f: forms.check_forms(f / "absent", {}),
            lambda f: forms.check_forms(a_form(f, sha256={".csv": "0"}), {}),
            lambda f: forms.check_forms(a_form(f), {"experiment": "another"}),
            (
                lambda f: (a_form(f), written(f / "table1.md", b"other"), forms.check_forms(f / "table1", {})),
                "is damaged or was edited: its hash is not that in",
            ),
            lambda f: (a_form(f), (f / "table1.md").unlink(), forms.check_forms(f / "table1", {})),
            lambda f: forms.check_forms(a_form(f), {}, [written(f / "frame")]),
        ],
    ),
    "reporting.listing.Listing.write": (UserError, [lambda f: NOTHING.write([SUMMARY], None, "Caption.", f / "t")]),
    "reporting.outcomes.accuracy_matrix": (
        UserError,
        [
            lambda f: matrix(a_record(gradient="none")),
            lambda f: matrix(a_record(), a_record(attack="clean"), epsilon=0.2),
            lambda f: matrix(a_record(), a_record(attack="clean", seed=1)),
            lambda f: matrix(a_record(), a_record(range(7, 9), attack="clean")),
        ],
    ),
    "reporting.outcomes.common_images": (
        UserError,
        [lambda f: outcomes.common_images([a_record(range(2)), a_record(range(5, 6))], "table x")],
    ),
    "reporting.outcomes.row_of_epsilon": (UserError, [lambda f: outcomes.row_of_epsilon(a_record(), 0.3, "table x")]),
    "reporting.published.read_published": (
        UserError,
        [
            lambda f: published.read_published(f / "absent"),
            lambda f: published.read_published(written(f / "p.csv", "a,b\n1,2\n")),
            lambda f: table_of_published(f, *["x,x,x,x,x,x,130,x,x,x"] * 2),
        ],
    ),
    "reporting.published.images_behind": (
        ValueError,
        [lambda f: published.images_behind(["130"]), lambda f: published.images_behind(["many"])],
    ),
    "reporting.results_page.results_page": (
        UserError,
        [results_page.results_page, lambda f: results_page.results_page(written(f / "claims.yaml").parent)],
    ),
    "reporting.results_page.read_papers": (
        UserError,
        [results_page.read_papers, lambda f: results_page.read_papers(written(f / "claims.yaml", "[1]").parent)],
    ),
    "reporting.results_page.check_verdict": (UserError, [lambda f: results_page.check_verdict("3 remain", "here")]),
    "reporting.results_page.filled": (
        UserError,
        [lambda f: results_page.filled(results_page.table_reader(f), {"a": "{x}", "numbers": {}}, ["a"], "here")],
    ),
    "reporting.results_page.exported_figure": (
        UserError,
        [lambda f: results_page.exported_figure(f, "e", "x", "here")],
    ),
    "reporting.results_page.check_keys": (UserError, [lambda f: results_page.check_keys({"a": 1}, {"b"}, "here")]),
    "reporting.readme.with_numbers": (UserError, [lambda f: readme.with_numbers("", f / "README.md", f)]),
    "reporting.table.at_epsilon": (
        UserError,
        [lambda f: table.at_epsilon(SUMMARY, "fgsm", 0.2), lambda f: table.at_epsilon(SUMMARY, "pgd", 0.1)],
    ),
    "reporting.tables.compare.select": (
        UserError,
        [
            lambda f: compared(published="biotorch"),
            lambda f: compared(published="biotorch", datasets={"nowhere": "mine"}),
            lambda f: compared(published="biotorch", datasets={"cifar10": "nowhere"}),
        ],
    ),
}
