"""What an audit takes of the records of given models: no attack through a gradient that is of no use."""

from collections.abc import Sequence

from creditflow.records.record import Record


def of_use(records: Sequence[Record]) -> tuple[list[Record], dict[str, list[str]]]:
    """Returns the records that an audit rests on, and the kinds of attack that cannot be run on a model, by its name.

    Where the derivative of what a model computes is zero almost everywhere or cannot be had, attacks along it show
    nothing. Then the worst case rests on the model's own gradient as a heuristic, on attacks without gradients,
    and on images that are transferred. It is an upper bound only, since nothing shows that these attacks are strong.
    """
    useless = {record.keys.rule for record in records if _backward_pass(record) == "no useful gradient"}
    kept = [record for record in records if not (record.keys.rule in useless and record.keys.gradient == "exact")]
    return kept, {name: ["scale_free"] for name in sorted(useless)}


def _backward_pass(record: Record) -> object:
    """Returns what `import_model` found of a given model's backward pass; None for our own networks."""
    return record.content.get("settings", {}).get("backward_pass")
