"""Exports an experiment's results: one folder with tables, figures, their provenance, and a page that explains them."""

import shutil
from collections.abc import Iterable, Sequence
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from creditflow.core import files, plugins
from creditflow.core.errors import UserError
from creditflow.core.identity import described, make_again
from creditflow.core.settings import parse
from creditflow.records.listing import content_hash, read_records
from creditflow.records.record import Record
from creditflow.reporting.collection import long_form, read_frame, read_frames
from creditflow.reporting.export_seal import write_export_seal
from creditflow.reporting.finished import Finished
from creditflow.reporting.forms import check_forms
from creditflow.reporting.listing import Listing
from creditflow.reporting.table import Table

#: Larger drawings are left out; the bitmap is always there.
_LARGEST_SVG = 300_000


def export(experiment: Finished, output: Path, *, mixed: bool = False) -> Path:
    """Writes `<output>/<experiment>/` and returns it.

    Raises UserError if something that the experiment declares is missing or was not made from the present records, and,
    unless `mixed`, if the records were made by different versions of the sources.
    """
    records = _checked_records(experiment)
    facts = provenance(records) | {"trained": trained(experiment.sidecars)}
    if len(facts["source_hashes"]) > 1 and not mixed:
        versions = f"{len(facts['source_hashes'])} versions of the sources"
        raise UserError(f"records of {experiment.name} were made by {versions}; make them again, or say --mixed")
    folder = output / experiment.name
    with files.folder_atomically(folder) as part:
        for path in _exported_files(experiment):
            if path.suffix != ".svg" or path.stat().st_size < _LARGEST_SVG:
                copy = part / path.relative_to(experiment.folder)
                copy.parent.mkdir(exist_ok=True)
                shutil.copyfile(path, copy)
        files.write_atomically(part / "README.md", readme(experiment, facts, part).encode())
        write_export_seal(part, {"experiment": experiment.name} | facts)
    return folder


def provenance(records: Sequence[Record]) -> dict[str, Any]:
    """Returns how the records were made, as they say: code, configuration, versions, machines, seeds and times.

    Of a machine it has the processors and the instruction set, but not the name. Raises UserError for a record that
    does not say it.
    """
    for record in records:
        _check_provenance(record)
    made, runs = [record.content["provenance"] for record in records], [record.content["run"] for record in records]
    packages = sorted({name for fact in made for name in fact["versions"]})
    started = sorted(run["started"] for run in runs)
    return {
        "records": len(records),
        "seeds": _different(record.keys.seed for record in records),
        "git_commits": _different(fact["git_commit"] for fact in made),
        "source_hashes": _different(fact["source_hash"] for fact in made),
        "config_hashes": _different(fact["config_hash"] for fact in made),
        "versions": {name: _different(fact["versions"].get(name) for fact in made) for name in packages}
        | {name: _different(fact[name] for fact in made) for name in ("creditflow", "python")},
        "devices": _different(fact["device"] for fact in made),
        "processors": _different(run["processor"] for run in runs),
        "cpus": _different(fact.get("cpu") for fact in made),
        "instruction_sets": _different(fact.get("instruction_set") for fact in made),
        "threads": _different(fact["threads"] for fact in made),
        "containers": _different(fact["container"] for fact in made),
        "wall_time_s": round(sum(run["wall_time_s"] for run in runs), 1),
        "earliest_start": started[0],
        "latest_start": started[-1],
    }


#: What the export tells of each record: facts of its provenance, and of its run.
_MADE = (
    "git_commit",
    "source_hash",
    "config_hash",
    "versions",
    "creditflow",
    "python",
    "device",
    "threads",
    "container",
)
_RUN = ("started", "processor", "wall_time_s")


def _check_provenance(record: Record) -> None:
    for part, names in (("provenance", _MADE), ("run", _RUN)):
        facts = record.content.get(part)
        missing = [name for name in names if name not in facts] if isinstance(facts, dict) else [part]
        if missing or (part == "provenance" and not isinstance(record.content[part]["versions"], dict)):
            raise UserError(
                f"{record.path} does not say how it was made: {', '.join(missing) or 'versions'} missing or broken;"
                f" {make_again(record.path)}"
            )


def trained(sidecars: Iterable[Path]) -> dict[str, Any]:
    """Returns which code trained the models. Their descriptions say it, as far as these still exist.

    This code may be older than the code that made the records. Raises UserError if a description is damaged or does not
    say it.
    """
    made = [_training(path) for path in sidecars if path.exists()]
    return {
        "trainings": len(made),
        "git_commits": _different(training["git_commit"] for training in made),
        "source_hashes": _different(training["source_hash"] for training in made),
    }


def _training(sidecar: Path) -> dict[str, Any]:
    content = files.read_json(sidecar, "the description of a trained model")
    made = content.get("provenance") if isinstance(content, dict) else None
    if not isinstance(made, dict) or not {"git_commit", "source_hash"} <= made.keys():
        raise UserError(f"{sidecar} does not say which code trained the model; move it away and train the model again")
    return made


def _different(values: Iterable[Any]) -> list[Any]:
    return sorted(set(values), key=lambda value: (value is None, value))


def readme(experiment: Finished, facts: dict[str, Any], folder: Path) -> str:
    """Returns the page that shows what lies in an exported folder."""
    parts = [
        f"# {' '.join(experiment.description.split()).rstrip('.')}",
        f"This is the experiment `{experiment.name}`. In a clone of the project, this command makes all of it again:",
        f"```\nmake demo results EXPERIMENT={experiment.name}\n```",
        "## Tables",
    ]
    for name in experiment.tables:
        parts += [
            f"### [{name}](tables/{name}.csv)",
            (folder / f"tables/{name}.md").read_text(encoding="utf-8").strip(),
        ]
    parts.append("## Figures")
    for name in experiment.figures:
        parts += [f"### {name}", f"![{name}](figures/{name}.png)", _caption("figure", name)]
    return "\n\n".join([*parts, "## Provenance", _provenance_lines(facts)]) + "\n"


def _caption(kind: str, name: str) -> str:
    return " ".join(plugins.docstring(kind, name).split())


def _provenance_lines(facts: dict[str, Any]) -> str:
    def listed(values: list[Any]) -> str:
        return ", ".join("none" if value is None else str(value) for value in values)

    torch, python = (listed(facts["versions"].get(name, [])) for name in ("torch", "python"))
    commits, sources, training = facts["git_commits"], facts["source_hashes"], facts["trained"]
    took = timedelta(seconds=round(facts["wall_time_s"]))
    lines = [
        f"{facts['records']} records, seeds {listed(facts['seeds'])}. The first was begun {facts['earliest_start']},"
        f" the last {facts['latest_start']}. Measuring took {took}; training is not counted",
        f"commit {listed(commits)}, sources {listed(sources)}",
        f"{training['trainings']} trainings before that: commit {listed(training['git_commits'])},"
        f" sources {listed(training['source_hashes'])}"
        if training["trainings"]
        else "which code trained the models is not known: their sidecars are no longer there",
        f"Python {python}, torch {torch}; device {listed(facts['devices'])} ({listed(facts['processors'])}),"
        f" instruction set {listed(facts['instruction_sets'])}, threads {listed(facts['threads'])};"
        f" container {listed(facts['containers'])}",
        "[provenance.json](provenance.json) has all of it",
    ]
    if any(str(commit).endswith("-dirty") for commit in commits):
        lines.insert(2, "a commit that is `-dirty` had changes beside it. The hash of the sources identifies its code")
    if len(sources) > 1:
        versions = f"**the records were made by {len(sources)} versions of the sources**"
        lines.insert(2, f"{versions}; each record names its own")
    return "\n".join(f"- {line}" for line in lines)


# --- what may be exported -----------------------------------------------------------------------------------------


def _exported_files(experiment: Finished) -> list[Path]:
    wanted = (("tables", experiment.tables, ("csv", "md")), ("figures", experiment.figures, ("png", "svg")))
    return [
        experiment.folder / folder / f"{name}.{suffix}"
        for folder, names, suffixes in wanted
        for name in names
        for suffix in suffixes
    ]


def _checked_records(experiment: Finished) -> list[Record]:
    """Returns the records, if everything is there and made from them."""
    collected = experiment.folder / "records.parquet"
    files_needed = (*experiment.records, collected, *_exported_files(experiment))
    missing = [path for path in files_needed if not path.exists()]
    if missing:
        others = f" and {len(missing) - 1} others" if len(missing) > 1 else ""
        raise UserError(f"{missing[0]}{others} missing; {experiment.again} first")
    records = read_records(experiment.records, experiment.keys_of)
    if not read_frame(collected, "records", {"experiment": experiment.name}).equals(long_form(records)):
        raise UserError(f"{collected} is not what the records say now; move it away and {experiment.again}")
    _check_age(experiment)
    _check_frames(experiment, records)
    for name in experiment.tables:
        _check_table(experiment, name)
    _check_seals(experiment)
    _check_models(experiment, records)
    return records


def _frames(experiment: Finished) -> list[Path]:
    """Returns the frames that tables and figures show.

    Populations are what records are made from, not what is made from records; published numbers lie elsewhere.
    """
    shown = {path for paths in experiment.sources.values() for path in paths}
    return sorted(path for path in shown if path.is_relative_to(experiment.folder) and path.suffix == ".parquet")


def _check_frames(experiment: Finished, records: Sequence[Record]) -> None:
    """Refuses frames that were made from other records, whatever their age."""
    present = content_hash(records)
    for path in _frames(experiment):
        read_frame(path, path.stem, {"experiment": experiment.name, "records": present})


#: What names a model within an experiment.
_MODEL = ("dataset", "backbone", "rule", "seed")


def _check_models(experiment: Finished, records: Sequence[Record]) -> None:
    """Refuses models that are not those that the records were measured on, as far as the models still exist."""
    measured: dict[tuple[object, ...], object] = {}
    for record in records:
        model = record.content.get("settings", {}).get("model")
        weights = model.get("weights") if isinstance(model, dict) else model
        measured[tuple(getattr(record.keys, name) for name in _MODEL)] = weights
    seen: dict[tuple[object, ...], Path] = {}
    for path in experiment.sidecars:
        content = files.read_json(path, "the description of a trained model") if path.exists() else {}
        identity = content.get("identity", {})
        if identity.get("stage") != "finetune":  # populations, and what fine-tuning starts from, are not measured
            continue
        name = tuple(identity.get(key) for key in _MODEL)
        if name in seen:
            raise UserError(f"{path} and {seen[name]} are both the model of {described(identity)}; {make_again(path)}")
        seen[name] = path
        if measured.get(name) not in (None, content["sha256"]["weights"]):
            raise UserError(
                f"{path} is not the model that the records of {described(identity)} were measured on: it was trained"
                f" again since, or replaced; {experiment.again}"
            )


def _check_seals(experiment: Finished) -> None:
    """Refuses tables and figures that are damaged, or were made from other content than their sources have now."""
    for (kind, name), sources in experiment.sources.items():
        check_forms(experiment.folder / f"{kind}s/{name}", {"experiment": experiment.name, kind: name}, sources)


def _check_age(experiment: Finished) -> None:
    """Refuses frames that are older than a record, and figures that are older than what they show."""
    for frame in _frames(experiment):
        _refuse_older(frame, experiment.records, experiment.again)
    for name in experiment.figures:
        figure = experiment.folder / f"figures/{name}.png"
        _refuse_older(figure, experiment.sources["figure", name], experiment.again)


def _check_table(experiment: Finished, name: str) -> None:
    """Makes a table once more and compares it with the exported one.

    A table follows from its frames and settings alone, whereas the bytes of a figure depend on fonts, too.
    """
    table: Table | Listing = plugins.load("table", name).TABLE
    settings = parse(plugins.settings_class("table", name), experiment.tables[name], f"settings of table {name}")
    frames = read_frames(experiment.sources["table", name], table.source, experiment.name, experiment.keys_of)
    with TemporaryDirectory() as scratch:
        table.write(frames, settings, _caption("table", name), Path(scratch, name))
        for suffix in (".csv", ".md"):
            path = experiment.folder / f"tables/{name}{suffix}"
            if path.read_bytes() != Path(scratch, name + suffix).read_bytes():
                raise UserError(
                    f"{path} is not what the records and the experiment say now; move it away and {experiment.again}"
                )


def _refuse_older(path: Path, sources: Sequence[Path], again: str) -> None:
    newest = max(sources, key=lambda source: source.stat().st_mtime_ns)
    if path.stat().st_mtime_ns < newest.stat().st_mtime_ns:
        raise UserError(f"{path} is older than {newest}; move it away and {again}")
