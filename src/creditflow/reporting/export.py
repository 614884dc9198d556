"""An experiment's results as one folder that explains itself: tables, figures, where they come from, how to make them again."""

import shutil
from collections.abc import Iterable, Sequence
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from creditflow.core import files, plugins
from creditflow.core.errors import UserError
from creditflow.core.settings import parse
from creditflow.records.record import Record, read_record
from creditflow.reporting.collection import long_form, read_frame, read_frames
from creditflow.reporting.listing import Listing
from creditflow.reporting.sources import source_files
from creditflow.reporting.table import Table
from creditflow.workflow.experiments import Experiment

#: Larger drawings are left out; the bitmap is always there.
_LARGEST_SVG = 300_000


def export(experiment: Experiment, results: Path, output: Path, *, mixed: bool = False) -> Path:
    """Writes `<output>/<experiment>/` and returns it.

    Raises UserError if something that the experiment declares is missing or not of the present records, and, unless `mixed`, if
    the records were made by different versions of the sources.
    """
    records = _checked_records(experiment, results)
    facts = provenance(records) | {"trained": trained(experiment, results)}
    if len(facts["source_hashes"]) > 1 and not mixed:
        count = len(facts["source_hashes"])
        raise UserError(
            f"records of {experiment.name} were made by {count} versions of the sources; make them again, or say --mixed"
        )
    folder = output / experiment.name
    with files.folder_atomically(folder) as part:
        for path in _products(experiment, results):
            if path.suffix != ".svg" or path.stat().st_size < _LARGEST_SVG:
                copy = part / path.relative_to(results / experiment.name)
                copy.parent.mkdir(exist_ok=True)
                shutil.copyfile(path, copy)
        files.write_json(part / "provenance.json", {"experiment": experiment.name} | facts)
        files.write_atomically(part / "README.md", readme(experiment, facts, part).encode())
    return folder


def provenance(records: Sequence[Record]) -> dict[str, Any]:
    """Returns what the records say of their making: code, configuration, versions, machines (not their names), seeds and times."""
    made, runs = [record.content["provenance"] for record in records], [record.content["run"] for record in records]
    packages = sorted({name for one in made for name in one["versions"]})
    started = sorted(run["started"] for run in runs)
    return {
        "records": len(records),
        "seeds": _different(record.keys.seed for record in records),
        "git_commits": _different(one["git_commit"] for one in made),
        "source_hashes": _different(one["source_hash"] for one in made),
        "config_hashes": _different(one["config_hash"] for one in made),
        "versions": {name: _different(one["versions"].get(name) for one in made) for name in packages}
        | {name: _different(one[name] for one in made) for name in ("creditflow", "python")},
        "devices": _different(one["device"] for one in made),
        "processors": _different(run["processor"] for run in runs),
        "threads": _different(one["threads"] for one in made),
        "containers": _different(one["container"] for one in made),
        "wall_time_s": round(sum(run["wall_time_s"] for run in runs), 1),
        "earliest_start": started[0],
        "latest_start": started[-1],
    }


def trained(experiment: Experiment, results: Path) -> dict[str, Any]:
    """Returns what sidecars of trained models or populations, where they are still there, say of the code: records may be younger.

    Raises UserError if a sidecar is damaged or does not say it.
    """
    sidecars = (name.with_suffix(".json") for name in experiment.trainings(results))
    made = [_training(path) for path in sidecars if path.exists()]
    return {
        "trainings": len(made),
        "git_commits": _different(one["git_commit"] for one in made),
        "source_hashes": _different(one["source_hash"] for one in made),
    }


def _training(sidecar: Path) -> dict[str, Any]:
    content = files.read_json(sidecar, "the description of a trained model")
    made = content.get("provenance") if isinstance(content, dict) else None
    if not isinstance(made, dict) or not {"git_commit", "source_hash"} <= made.keys():
        raise UserError(f"{sidecar} does not say which code trained the model; delete it and train the model again")
    return made


def _different(values: Iterable[Any]) -> list[Any]:
    return sorted(set(values), key=lambda value: (value is None, value))


def readme(experiment: Experiment, facts: dict[str, Any], folder: Path) -> str:
    """Returns the page that shows what lies in an exported folder."""
    parts = [
        f"# {experiment.name}",
        f"{experiment.keys['description'].strip().rstrip('.')}.",
        "To make all of this again, in a clone of the project:",
        f"```\nmake demo results EXPERIMENT={experiment.name}\n```",
        "## Tables",
    ]
    for name in experiment.keys["tables"]:
        parts += [f"### [{name}](tables/{name}.csv)", (folder / f"tables/{name}.md").read_text().strip()]
    parts.append("## Figures")
    for name in experiment.keys["figures"]:
        parts += [f"### {name}", f"![{name}](figures/{name}.png)", _caption("figure", name)]
    return "\n\n".join([*parts, "## Provenance", _provenance_lines(facts)]) + "\n"


def _caption(kind: str, name: str) -> str:
    return " ".join(plugins.docstring(kind, name).split())


def _provenance_lines(facts: dict[str, Any]) -> str:
    def listed(values: list[Any]) -> str:
        return ", ".join("none" if value is None else str(value) for value in values)

    torch, python = (listed(facts["versions"].get(name, [])) for name in ("torch", "python"))
    commits, sources, training = facts["git_commits"], facts["source_hashes"], facts["trained"]
    lines = [
        f"{facts['records']} records, seeds {listed(facts['seeds'])}; the first was begun {facts['earliest_start']}, the last"
        f" {facts['latest_start']}, and all took {timedelta(seconds=round(facts['wall_time_s']))} of measuring (training not counted)",
        f"commit {listed(commits)}, sources {listed(sources)}",
        f"{training['trainings']} trainings before that: commit {listed(training['git_commits'])},"
        f" sources {listed(training['source_hashes'])}"
        if training["trainings"]
        else "which code trained the models is not known: their sidecars are no longer there",
        f"Python {python}, torch {torch}; device {listed(facts['devices'])} ({listed(facts['processors'])}),"
        f" threads {listed(facts['threads'])}; container {listed(facts['containers'])}",
        "all of it in [provenance.json](provenance.json)",
    ]
    if any(str(commit).endswith("-dirty") for commit in commits):
        lines.insert(
            2, "a commit that is `-dirty` had changes beside it: the hash of the sources is what identifies the code"
        )
    if len(sources) > 1:
        lines.insert(
            2,
            f"**the records were made by {len(sources)} versions of the sources**; which one made which is in each record",
        )
    return "\n".join(f"- {line}" for line in lines)


# --- what may be exported -----------------------------------------------------------------------------------------


def _products(experiment: Experiment, results: Path) -> list[Path]:
    folder = results / experiment.name
    tables = [folder / f"tables/{name}.{suffix}" for name in experiment.keys["tables"] for suffix in ("csv", "md")]
    return tables + [
        folder / f"figures/{name}.{suffix}" for name in experiment.keys["figures"] for suffix in ("png", "svg")
    ]


def _checked_records(experiment: Experiment, results: Path) -> list[Record]:
    """Returns the records, if everything is there and made from them."""
    paths, again = experiment.record_paths(results), f"run `snakemake --cores all {experiment.name}`"
    collected = results / experiment.name / "records.parquet"
    missing = [path for path in (*paths, collected, *_products(experiment, results)) if not path.exists()]
    if missing:
        raise UserError(
            f"{missing[0]}{f' and {len(missing) - 1} others' if len(missing) > 1 else ''} missing; {again} first"
        )
    records = [read_record(path) for path in paths]
    if not read_frame(collected, "records").equals(long_form(records)):
        raise UserError(f"{collected} is not what the records say now; delete it and {again}")
    shown = {
        (kind, name): source_files(experiment, results, kind, name)
        for kind in ("table", "figure")
        for name in experiment.keys[f"{kind}s"]
    }
    # Populations are what records are made from, not what is made from records.
    collected_frames = {
        frame
        for frames in shown.values()
        for frame in frames
        if frame.is_relative_to(results) and frame.suffix == ".parquet"
    }
    for frame in sorted(collected_frames):
        _refuse_older(frame, paths, again)
    for (kind, name), frames in shown.items():
        if kind == "table":
            _check_table(experiment, results, name, frames, again)
        else:
            _refuse_older(results / experiment.name / f"figures/{name}.png", frames, again)
    return records


def _check_table(experiment: Experiment, results: Path, name: str, frames: Sequence[Path], again: str) -> None:
    """Makes a table once more, as it follows from its frames and settings alone; a drawing's bytes depend on fonts, too."""
    table: Table | Listing = plugins.load("table", name).TABLE
    settings = parse(table.settings, experiment.keys["tables"][name], f"settings of table {name}")
    with TemporaryDirectory() as scratch:
        table.write(read_frames(frames, table.source), settings, _caption("table", name), Path(scratch, name))
        for suffix in (".csv", ".md"):
            path = results / experiment.name / f"tables/{name}{suffix}"
            if path.read_bytes() != Path(scratch, name + suffix).read_bytes():
                raise UserError(f"{path} is not what the records and the experiment say now; delete it and {again}")


def _refuse_older(product: Path, sources: Sequence[Path], again: str) -> None:
    newest = max(sources, key=lambda path: path.stat().st_mtime_ns)
    if product.stat().st_mtime_ns < newest.stat().st_mtime_ns:
        raise UserError(f"{product} is older than {newest}; delete it and {again}")
