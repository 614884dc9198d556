"""The card of a trained network: what it is, how it was trained, and what the audit found, from records alone."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd
from numpy.typing import NDArray

from creditflow.records.record import Record
from creditflow.reporting.export import provenance
from creditflow.reporting.finished import Finished
from creditflow.reporting.measures import measure_of
from creditflow.reporting.names import condition_title, display
from creditflow.verdict.cells import Cell
from creditflow.verdict.outcomes import Condition, worst_case
from creditflow.verdict.statistics import accuracy


@dataclass(frozen=True)
class Network:
    """A trained network, and what was measured of it.

    Attributes:
        experiment: the experiment that made it.
        path: the file of its weights.
        sidecar: its description, as `read_sidecar` returns it.
        records: the records that were measured on it.
        audit: the rows of the audit of its rule, dataset and backbone.
        cell: what the audit compares on its dataset and backbone.
    """

    experiment: Finished
    path: Path
    sidecar: Mapping[str, Any]
    records: Sequence[Record]
    audit: pd.DataFrame
    cell: Cell

    @cached_property
    def identity(self) -> Mapping[str, Any]:
        """What the description says that the network is."""
        identity: Mapping[str, Any] = self.sidecar["identity"]
        return identity

    @property
    def folder(self) -> str:
        """The folder in the archive."""
        return "/".join(str(self.identity[key]) for key in ("experiment", "dataset", "backbone", "rule"))

    @property
    def stem(self) -> str:
        """The name of its files, without suffix."""
        return self.path.stem


def title(network: Network) -> str:
    """Returns a name that people understand, such as "LeNet-5 on Fashion-MNIST 5-9, frSF, seed 0"."""
    names = {key: display(str(network.identity[key])) for key in ("backbone", "dataset", "rule")}
    return f"{names['backbone']} on {names['dataset']}, {names['rule']}, seed {network.identity['seed']}"


def model_card(network: Network) -> str:
    """Returns the card in Markdown."""
    parts = [
        f"# {title(network)}",
        f"One network of the experiment `{network.experiment.name}`: {_sentence(network.experiment.description)}",
        "## What it is",
        _table(_facts(network)),
        f"## {measure_of(network.audit).title}",
        _accuracies(network),
        "## Verdict",
        _verdicts(network),
        "## Provenance",
        _table(_provenance(network)),
        "## How to load it",
        _usage(network),
    ]
    return "\n\n".join(parts) + "\n"


def _sentence(text: str) -> str:
    return " ".join(text.split()).rstrip(".") + "."


def _table(facts: Mapping[str, object]) -> str:
    lines = [f"| {name} | {str(value).replace('|', '/')} |" for name, value in facts.items()]
    return "\n".join(["| | |", "|:--|:--|", *lines])


def _listed(values: Any) -> str:
    """Returns values in words: a mapping as "name value, ...", a list as its members, nothing as "none"."""
    if isinstance(values, Mapping):
        return ", ".join(f"{name} {_listed(value)}" for name, value in values.items()) or "none"
    if isinstance(values, list | tuple):
        return ", ".join(map(_listed, values)) or "none"
    return "none" if values is None else str(values)


def _facts(network: Network) -> dict[str, object]:
    settings, spec = network.sidecar.get("settings", {}), network.sidecar["spec"]
    class_names = [record.content.get("settings", {}).get("class_names") for record in network.records]
    classes = next((known for known in class_names if known), settings.get("classes"))
    start, names = settings.get("pretrained"), network.identity
    return {
        "Network": f"{display(names['backbone'])}, images of {' x '.join(map(str, spec['image_shape']))} (channels,"
        f" height, width) with pixels from 0 to 1, {spec['n_classes']} classes",
        "Data": f"{display(names['dataset'])}; classes: {_listed(classes)};"
        f" SHA-256 of the prepared data `{settings.get('data')}`",
        "Rule": f"{display(names['rule'])} (`{names['rule']}`)",
        "Start": f"a network with the SHA-256 `{start}`" if start else "random weights",
        "Training": _listed(settings.get("settings", {})),
        "Seed": names["seed"],
        "Licence": "MIT, as creditflow; the licence of the data is its publisher's",
    }


def _accuracies(network: Network) -> str:
    """Returns the table of this network's accuracies, and what they were measured on."""
    epsilons = list(network.cell.plan.epsilons)
    by_epsilon = [network.cell.evidence(network.identity["rule"], [network.identity["seed"]], e) for e in epsilons]
    first, claim = by_epsilon[0], network.cell.plan.claim
    lines = ["| Attack | " + " | ".join(f"epsilon {epsilon:g}" for epsilon in epsilons) + " |"]
    lines.append("|:--|" + "--:|" * len(epsilons))
    lines.append(f"| none, {first.clean.shape[1]:,} images | " + " | ".join([_measured(first.clean)] * len(epsilons)))
    for condition in [(claim, gradient) for gradient in ("exact", "feedback") if (claim, gradient) in first.outcomes]:
        cells = [_measured(evidence.outcomes[condition]) for evidence in by_epsilon]
        lines.append(f"| {_in_words(condition)} | " + " | ".join(cells))
    lines.append("| worst case | " + " | ".join(_measured(worst_case(evidence.outcomes)) for evidence in by_epsilon))
    n_images = worst_case(first.outcomes).shape[1]
    attacks = "; ".join(_in_words(condition) for condition in sorted(first.outcomes))
    return (
        "Numbers are percent of this one network, with 95% intervals over images. Attacks were run on"
        f" {n_images:,} images. An image counts against the worst case if any of these attacks fools the network:"
        f" {attacks}.\n\n" + "\n".join(line if line.endswith("|") else f"{line} |" for line in lines)
    )


def _measured(outcomes: NDArray[Any]) -> str:
    estimate = accuracy(outcomes)
    return "{:.1f} ({:.1f} to {:.1f})".format(*(100 * share for share in (estimate.value, estimate.low, estimate.high)))


def _in_words(condition: Condition) -> str:
    return condition_title(" ".join(condition))


def _verdicts(network: Network) -> str:
    """Returns what the audit says of all seeds of the rule together."""
    rows = network.audit.sort_values("epsilon").to_dict("records")
    rule = display(network.identity["rule"])
    n_seeds, n_images = rows[0]["n_seeds"], rows[0]["n_images"]
    if not any(row["net_effect"] for row in rows):
        return f"{rule} is the reference that the audit compares other networks with, so it has no verdict itself."
    lines = ["| epsilon | claim | net effect | worst case is sound | reason, or guards |", "|--:|:--|:--|:--|:--|"]
    for row in rows:
        why = row["reason"] or row["guards"] or "none"
        sound = "yes" if row["sound"] else "no"
        lines.append(
            f"| {row['epsilon']:g} | {row['claim_verdict']} | {row['net_effect']} | {sound} | {why.replace('|', '/')} |"
        )
    return (
        f"The audit compares networks of {rule} with their reference, over {n_seeds} seeds and {n_images:,} images."
        f" Its words hold for {rows[0]['scope']}; docs/audit.md of creditflow explains them.\n\n" + "\n".join(lines)
    )


def _provenance(network: Network) -> dict[str, object]:
    made, run = network.sidecar["provenance"], network.sidecar.get("run", {})
    measured = provenance(network.records)
    said = ("creditflow", "python", "torch")
    versions = made["versions"] | {name: made.get(name) for name in said[:2]}
    tested = {name: measured["versions"].get(name) for name in said}
    return {
        "Trained": f"{run.get('started')}, by commit {made['git_commit']}, sources {made['source_hash']}",
        "Trained with": _listed({name: versions.get(name) for name in said}),
        "Trained on": f"device {made.get('device')}, {run.get('processor')}, instruction set"
        f" {made.get('instruction_set')}, threads {made.get('threads')}, container {_listed(made.get('container'))}",
        "Measured": f"{measured['records']} records from {measured['earliest_start']} to {measured['latest_start']},"
        f" by commit {_listed(measured['git_commits'])}, sources {_listed(measured['source_hashes'])}",
        "Measured with": f"{_listed(tested)}; {_listed(measured['processors'])}",
        "SHA-256 of the weights": f"`{network.sidecar['sha256']['weights']}`",
        "SHA-256 of the feedback state": f"`{network.sidecar['sha256']['feedback']}`",
    }


def _usage(network: Network) -> str:
    file = f"{network.stem}.safetensors"
    return f"""```python
from creditflow import apply_rule, load_feedback, load_model

model = load_model("{file}")  # the plain network, in eval mode on the CPU; its gradients are exact
rule, state = load_feedback("{file}")
view = apply_rule(model, rule, state=state)  # the same weights, with the backward pass of its training
```"""
