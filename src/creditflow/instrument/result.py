"""What an audit returns: verdicts in words, the table, the figure, the reports on gradients, and all records."""

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from textwrap import fill
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from creditflow.core.errors import UserError
from creditflow.core.files import as_path, write_atomically
from creditflow.derivatives.report import GradientReport
from creditflow.instrument import words
from creditflow.instrument.figure import draw
from creditflow.instrument.page import figure_bytes, page
from creditflow.instrument.run import path_of
from creditflow.records.record import Record, write_record


@dataclass(frozen=True)
class AuditResult:
    """The outcome of an audit. `print(result)` shows the verdict in words, and then the table.

    Attributes:
        table: a row for each model and epsilon, a pandas frame. Accuracies, differences and shares are fractions; the
            columns are those of `verdict.verdicts.COLUMNS` (docs/audit.md explains them), with `model` for the rule and
            `gradient`, what the gradient of the model is worth.
        accuracies: accuracy with its 95% interval for each model, epsilon and attack, a pandas frame.
        gradients: for each model the report of `check_gradient`.
        records: the record of each network and attack; `outcomes["correct"]` has every image.
        reference: the model that others are compared with.
        facts: how it was measured: settings, hashes and provenance.
    """

    table: pd.DataFrame
    accuracies: pd.DataFrame
    gradients: Mapping[str, GradientReport]
    records: Sequence[Record] = field(repr=False)
    reference: str
    facts: Mapping[str, Any] = field(repr=False)

    @cached_property
    def verdicts(self) -> list[str]:
        """A text for each model at each epsilon: its worst case, what becomes of its claim, and the net effect."""
        return words.verdict_sentences(self.table, self.reference)

    def figure(self) -> Figure:
        """Returns a matplotlib figure: accuracy by attack and model at each epsilon, with 95% intervals."""
        return draw(self.accuracies)

    def save(self, folder: str | Path) -> Path:
        """Writes report.html, table.csv, figure.png, figure.svg, records/ and adversarial/, and returns the folder.

        `adversarial/<model>-seed<n>.npz` has the images of the strongest attack: `images` (epsilons, N, C, H, W) in
        the units of the audit's bounds, `clean` (N, C, H, W), `epsilons`, `labels` and `predictions` (epsilons, N).

        Raises UserError if `folder` is a file.
        """
        target = as_path(str(folder))
        if target.exists() and not target.is_dir():
            raise UserError(f"{target} is a file; name a folder")
        for record in self.records:
            path = path_of(target, record.keys)
            if path.resolve() != record.path.resolve():
                facts = {name: value for name, value in record.content.items() if name not in _WRITTEN}
                write_record(path, record.keys, record.metrics, record.outcomes, **facts)
        for record in self._strongest():
            name = f"{record.keys.rule}-seed{record.keys.seed}.npz"
            write_atomically(target / "adversarial" / name, self._images(record))
        write_atomically(target / "table.csv", self.table.to_csv(index=False).encode())
        forms = {form: figure_bytes(self.figure(), form) for form in ("png", "svg")}
        for form, content in forms.items():
            write_atomically(target / f"figure.{form}", content)
        write_atomically(target / "report.html", self._page(forms["svg"]).encode())
        return target

    def _strongest(self) -> list[Record]:
        """Returns of each network the record with kept images and the lowest accuracy."""
        chosen: dict[tuple[str, int], Record] = {}
        for record in self.records:
            if "kept_images" in record.outcomes:
                place = (record.keys.rule, record.keys.seed)
                best = chosen.setdefault(place, record)
                if record.outcomes["correct"].mean() < best.outcomes["correct"].mean():
                    chosen[place] = record
        return list(chosen.values())

    def _images(self, record: Record) -> bytes:
        low, high = self.facts["bounds"]
        outcomes = record.outcomes
        buffer = io.BytesIO()
        np.savez_compressed(
            buffer,
            images=outcomes["kept_images"] * np.float32(high - low) + np.float32(low),
            clean=outcomes["kept_clean"] * np.float32(high - low) + np.float32(low),
            epsilons=np.array(self.facts["epsilons"]),
            labels=outcomes["kept_labels"],
            predictions=outcomes["kept_predictions"],
        )
        return buffer.getvalue()

    def _page(self, figure: bytes) -> str:
        attacks = [
            {"model": record.keys.rule, "network": record.keys.seed, "attack": record.keys.attack}
            | {"gradient": record.keys.gradient, "settings": _shown(record.content["settings"].get("parameters"))}
            | {"seconds": record.content.get("run", {}).get("wall_time_s", "")}
            for record in self.records
        ]
        return page(
            [*self.verdicts, *words.gradient_sentences(self.gradients)],
            self._limits(),
            {name: str(report) for name, report in self.gradients.items()},
            figure,
            words.short_table(self.table),
            pd.DataFrame(attacks),
            self.facts,
        )

    def _limits(self) -> list[str]:
        return words.limits(self.table, bool(self.facts["transfer"]), self.facts["margin"])

    def __str__(self) -> str:
        """Returns the verdict in words, in lines of at most 100 characters, and then the table."""
        sentences = [*self.verdicts, *words.gradient_sentences(self.gradients), *self._limits()]
        table = words.short_table(self.table).to_string(index=False)
        return "\n\n".join([*(fill(text, 100, break_on_hyphens=False) for text in sentences), table])


#: What a record's file has beside its facts.
_WRITTEN = ("format", "keys", "metrics", "outcomes")


def _shown(parameters: Mapping[str, Any] | None) -> str:
    """Returns settings as text, without what is not set."""
    texts = []
    for name, value in (parameters or {}).items():
        if isinstance(value, Mapping):
            texts.append(f"{name} ({_shown(value)})")
        elif value not in (None, False):
            texts.append(f"{name} {value:.3g}" if isinstance(value, float) else f"{name} {value}")
    return ", ".join(texts)
