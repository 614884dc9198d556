"""The release of trained networks: one archive with each network, its description, its model card, and all checksums.

Everything in the archive comes from an experiment's records, its audit and its models, and all of it is verified first.
The same results give the same bytes of the archive.
"""

import io
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from creditflow.core import files
from creditflow.core.errors import UserError
from creditflow.core.identity import described
from creditflow.models.storage import feedback_path, read_sidecar, sidecar_path
from creditflow.records.listing import content_hash, read_records
from creditflow.records.record import Record
from creditflow.reporting.collection import read_frame
from creditflow.reporting.export import provenance, trained
from creditflow.reporting.finished import Finished
from creditflow.reporting.model_card import Network, model_card, title
from creditflow.verdict.cells import OUTCOMES, Cell, cells, plan_of

_README = """# Trained networks of creditflow {version}

Each network is a file of weights (`.safetensors`), the state of its feedback weights (`.feedback.safetensors`), and a
description of both (`.json`). The model card beside them (`.md`) says how the network was trained, and what the audit
found. `sha256sum --check SHA256SUMS` verifies all files. Python loads a network with `creditflow.load_model`.

| network | experiment | card |
|:--|:--|:--|
"""


@dataclass(frozen=True)
class Released:
    """An experiment whose networks are released: those of some seeds, or of all (None)."""

    experiment: Finished
    seeds: Sequence[int] | None = None


def write_release(wanted: Sequence[Released], archive: Path, version: str, licence: Path) -> int:
    """Writes the archive of the networks of finished experiments, and returns how many networks it holds.

    Args:
        wanted: the experiments, and the seeds whose networks are released.
        archive: the file to write; its name without `.tar` is that of the folder within it.
        version: the version of the release.
        licence: the file with the licence of the networks.

    Raises:
        UserError: if an experiment has no audit or no network of a seed; if a record, the audit or a file of a network
            is missing, unsealed, damaged or not of this experiment; or if records, or networks, were made by different
            versions of the sources.
    """
    members = {"LICENSE": files.read_plain(licence)}
    lines = []
    for released in wanted:
        networks = _networks(released)
        for network in networks:
            members |= _files_of(network)
            card = f"{network.folder}/{network.stem}.md"
            lines.append(f"| {title(network)} | `{released.experiment.name}` | [{network.stem}]({card}) |")
    members["README.md"] = (_README.format(version=version) + "\n".join(lines) + "\n").encode()
    sums = "".join(f"{files.sha256(content)}  {name}\n" for name, content in sorted(members.items()))
    members["SHA256SUMS"] = sums.encode()
    files.write_atomically(archive, _tar(archive.name.removesuffix(".tar"), members))
    return len(lines)


def _tar(folder: str, members: Mapping[str, bytes]) -> bytes:
    """Returns an archive that holds nothing of the machine or the time: no owners, no dates, names in order."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for name, content in sorted(members.items()):
            member = tarfile.TarInfo(f"{folder}/{name}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def _files_of(network: Network) -> dict[str, bytes]:
    """Returns the files of a network by their names in the archive. The description does not name the machine."""
    sidecar = dict(network.sidecar)
    if isinstance(sidecar.get("run"), dict):
        sidecar["run"] = {key: value for key, value in sidecar["run"].items() if key != "host"}
    content = {
        ".safetensors": _verified(network.path, network.sidecar["sha256"]["weights"]),
        ".feedback.safetensors": _verified(feedback_path(network.path), network.sidecar["sha256"]["feedback"]),
        ".json": files.json_bytes(files.seal(sidecar)),
        ".md": model_card(network).encode(),
    }
    return {f"{network.folder}/{network.stem}{suffix}": part for suffix, part in content.items()}


def _verified(path: Path, expected: str) -> bytes:
    if not path.exists():
        raise UserError(f"{path} is missing; copy it again from where it is whole, or train the network again")
    content = files.read_plain(path)
    if files.sha256(content) != expected:
        raise UserError(f"{path} is damaged or not the file that its sidecar describes; train the network again")
    return content


def _networks(released: Released) -> list[Network]:
    experiment, records = released.experiment, _records(released.experiment)
    rows = read_frame(
        experiment.folder / "audit.parquet", "audit", {"experiment": experiment.name, "records": content_hash(records)}
    )
    task = "retrieval" if any(record.keys.task == "retrieval" for record in records) else "classification"
    plan = plan_of(experiment.audit or {}, OUTCOMES[task])
    places = {(cell.dataset, cell.backbone): cell for cell in cells(records, plan)}
    sidecars = _sidecars(released)
    _refuse_mixed(experiment, "networks", trained(map(sidecar_path, sidecars))["source_hashes"])
    return [_network(experiment, path, sidecar, records, rows, places) for path, sidecar in sidecars.items()]


def _records(experiment: Finished) -> list[Record]:
    """Returns the records, if all are there and one version of the sources made them."""
    if experiment.audit is None:
        raise UserError(f"{experiment.name} has no audit, so no card can say what its networks are worth; name another")
    needed = (*experiment.records, experiment.folder / "audit.parquet")
    if missing := [path for path in needed if not path.exists()]:
        others = f" and {len(missing) - 1} others" if len(missing) > 1 else ""
        raise UserError(f"{missing[0]}{others} missing; {experiment.again} first")
    records = read_records(experiment.records, experiment.keys_of)
    _refuse_mixed(experiment, "records", provenance(records)["source_hashes"])
    return records


def _refuse_mixed(experiment: Finished, what: str, sources: Sequence[str]) -> None:
    if len(sources) > 1:
        raise UserError(
            f"{what} of {experiment.name} were made by {len(sources)} versions of the sources; make them again"
        )


def _sidecars(released: Released) -> dict[Path, dict[str, Any]]:
    """Returns the descriptions of the networks that are released, by the paths of their weights."""
    experiment = released.experiment
    sidecars: dict[Path, dict[str, Any]] = {}
    for place in experiment.sidecars:
        path = place.with_suffix(".safetensors")
        if not place.exists():
            raise UserError(f"{place} is missing; {experiment.again} first")
        content = files.read_json(place, "the description of a trained model")
        identity = content.get("identity") if isinstance(content, dict) else None
        # What fine-tuning starts from is not measured. What says nothing of itself is refused by its reader.
        if not isinstance(identity, dict) or identity.get("stage") == "finetune":
            sidecars[path] = read_sidecar(path)
    seeds = sorted({sidecar["identity"]["seed"] for sidecar in sidecars.values()})
    for seed in released.seeds or ():
        if seed not in seeds:
            known = ", ".join(map(str, seeds)) or "none"
            raise UserError(f"{experiment.name} has no fine-tuned network of seed {seed}; it has {known}")
    if not sidecars:
        raise UserError(f"{experiment.name} has no fine-tuned network; name an experiment that fine-tunes")
    chosen = seeds if released.seeds is None else released.seeds
    return {path: sidecar for path, sidecar in sidecars.items() if sidecar["identity"]["seed"] in chosen}


#: What names a network within an experiment.
_NAMES = ("experiment", "dataset", "backbone", "rule", "seed")


def _network(
    experiment: Finished,
    path: Path,
    sidecar: dict[str, Any],
    records: Sequence[Record],
    audit: pd.DataFrame,
    places: Mapping[tuple[str, str], Cell],
) -> Network:
    """Returns a network with what was measured of it. Raises UserError if the records are of another one."""
    identity = sidecar["identity"]
    names = {name: identity.get(name) for name in _NAMES}
    measured = [
        record for record in records if {name: asdict(record.keys)[name] for name in _NAMES}.items() == names.items()
    ]
    weights = {_weights(record) for record in measured} - {None}
    if weights != {sidecar["sha256"]["weights"]}:
        raise UserError(
            f"{path} is not the model that the records of {described(names)} were measured on; {experiment.again}"
        )
    chosen = (audit.dataset == names["dataset"]) & (audit.backbone == names["backbone"]) & (audit.rule == names["rule"])
    cell = places.get((str(names["dataset"]), str(names["backbone"])))
    if cell is None or not chosen.any():
        raise UserError(f"the audit of {experiment.name} says nothing of {described(names)}; release other networks")
    return Network(experiment, path, sidecar, measured, audit[chosen], cell)


def _weights(record: Record) -> object:
    model = record.content.get("settings", {}).get("model")
    return model.get("weights") if isinstance(model, dict) else model
