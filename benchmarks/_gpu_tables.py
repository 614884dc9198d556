"""The tables of `gpu.py`: a row of a part becomes a line of Markdown."""

from collections.abc import Callable, Sequence
from typing import Any

from _gpu_run import Row

Cells = dict[str, str]


def number(value: float | None, form: str = "{:.2f}") -> str:
    return "-" if value is None else form.format(value)


def spread(numbers: dict[str, Any]) -> str:
    return f"{numbers['ratio']:.2f} ({numbers['low']:.2f} to {numbers['high']:.2f})"


def checked(row: Row, numbers: dict[str, Any]) -> Cells:
    counts = {word: str(numbers[word]) for word in ("passed", "failed", "skipped")}
    return {"test": row["name"], **counts, "seconds": number(numbers["seconds"], "{:.1f}")}


def steps(row: Row, numbers: dict[str, Any]) -> Cells:
    return {
        "network": numbers["network"],
        "rule": numbers["rule"],
        "computed": numbers["way"],
        "ms": number(numbers["ms"]),
        "memory, MiB": number(numbers["mib"], "{:.0f}"),
        "compared with": f"{numbers['against']} ({numbers['base_ms']:.2f} ms)",
        "time": spread(numbers),
        "memory": number(numbers["mib_ratio"]),
    }


def populations(row: Row, numbers: dict[str, Any]) -> Cells:
    return {
        "rule": numbers["rule"],
        "networks": str(numbers["networks"]),
        "microseconds per network and step": number(numbers["microseconds"], "{:.0f}"),
        "compared with one alone": number(numbers["over_alone"], "{:.3f}"),
        "compared with torch.nn's loop": number(numbers["over_loop"], "{:.3f}"),
    }


def attacks(row: Row, numbers: dict[str, Any]) -> Cells:
    return {
        "network": numbers["network"],
        "attack": numbers["attack"],
        "seconds": number(numbers["seconds"], "{:.3f}"),
        "attacked images per second": number(numbers["rate"], "{:.0f}"),
        "foolbox's time / ours": number(numbers["foolbox_over_ours"]),
    }


def targets(row: Row, numbers: dict[str, Any]) -> Cells:
    return {
        "rule": numbers["rule"],
        "seconds per epoch": number(numbers["alone_s"]),
        f"a member of {numbers['members']}": number(numbers["member_s"]),
        "compared with one alone": number(numbers["member_over_alone"]),
    }


def table(rows: Sequence[Row], cells: Callable[[Row, dict[str, Any]], Cells]) -> list[Cells]:
    """Returns the lines of a table. A row without numbers says why in its last columns' place: `name: reason`."""
    lines = [cells(row, row["numbers"]) if row.get("numbers") else {} for row in rows]
    columns = list(dict.fromkeys(column for line in lines for column in line)) or ["measured"]
    for line, row in zip(lines, rows, strict=True):
        if row["status"] == "measured":
            continue
        line[columns[0]] = f"{row['name']}: {row['status']}, {row['reason']}".replace("|", "/")
    return [{column: line.get(column, "-") for column in columns} for line in lines]
