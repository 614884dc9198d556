"""What docstrings promise of refusals is kept: each function that says what it raises is made to raise it.

A function, method or class of any room that says "Raises", or that it raises a UserError, has its cases here, or the
test that has them is named. So whoever writes a new promise also writes the case.
"""

import ast
import dataclasses
import fcntl
import io
import json
import re
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import creditflow
from creditflow.compute import device, gpus
from creditflow.core import effects, files, gradients, identity, modules, plugins, run_memory, settings, tables
from creditflow.core.errors import UserError
from creditflow.populations.optimizer_settings import OptimizerSettings
from creditflow.records import agreement, listing, record
from creditflow.records.record import Keys, Metric
from creditflow.training.settings import TrainingSettings
from faults.promised_attacks import ATTACKS, VERDICT
from faults.promised_data import DATA, Promised, Provoke, written
from faults.promised_gradients import DERIVATIVES, FEEDBACK
from faults.promised_instrument import INSTRUMENT
from faults.promised_networks import MODELS, POPULATIONS, TRAINING
from faults.promised_reporting import REPORTING
from faults.promised_stages import STAGES
from faults.promised_weights import WEIGHTS
from faults.promised_workflow import WORKFLOW
from helpers import ROOT

PACKAGE = ROOT / "src/creditflow"
ROOMS = sorted(path.name for path in PACKAGE.iterdir() if path.is_dir() and not path.name.startswith("_"))

#: Promises whose trial needs more than a line, such as a server, another process or a distribution: the test file, and
#: words in it that only the trial has.
ELSEWHERE = {
    "attacks.precision.in_float64": ("tests/attacks/test_precision.py", "in_float64(problem)"),
    "compute.gpus.announce_slots": ("tests/compute/test_gpus.py", "announce_slots("),
    "compute.gpus.take_slot": ("tests/compute/test_gpus.py", "take_slot("),
    "core.entry_points.outside_plugin": ("tests/core/test_entry_points.py", "outside"),
    "core.plugins.outside": ("tests/core/test_entry_points.py", "outside"),
    "core.plugins.path": ("tests/core/test_entry_points.py", "outside"),
    "core.factory.parse_source": ("tests/models/test_factories.py", "parse_source"),
    "data.downloads.open_address": ("tests/faults/test_waits.py", "downloads.open_address("),
    "data.downloads.pieces": ("tests/faults/test_waits.py", "downloads.pieces("),
    "verdict.stability.stability": ("tests/verdict/test_stability.py", "stability needs more than 3 seeds"),
    "workflow.attack_consistency.check_attacks": ("tests/workflow/test_gradients.py", "is not under"),
    "workflow.consistency.check_keys": ("tests/workflow/test_experiments.py", "is not under"),
    "workflow.consistency.check_lender": ("tests/workflow/test_experiments.py", "pretrain.experiment"),
    "workflow.consistency.check_training": ("tests/workflow/test_given_models.py", "experiment mine: "),
    "workflow.effects.check_all_effects": ("tests/workflow/test_effects.py", "has no effect"),
    "workflow.experiments.Experiment.surrogates": ("tests/workflow/test_gradients.py", ".surrogates("),
    "workflow.finished.finished": ("tests/reporting/test_export.py", "finished("),
    "workflow.given_models.with_given_models": ("tests/workflow/test_given_models.py", "the reference"),
    "workflow.image_plugins.check_plugins": (
        "tests/core/test_entry_points.py",
        "which the container image does not have",
    ),
    "workflow.locks.release_dead_locks": ("tests/faults/test_waits.py", "another Snakemake has kept"),
    "workflow.plugin_settings.check_settings": ("tests/workflow/test_settings.py", "UserError, match="),
    "workflow.published_hyperparameters.fill_in": ("tests/reporting/test_target_propagation_reporting.py", "UserError"),
    "workflow.report.check_report": ("tests/faults/test_identity.py", "--report"),
    "workflow.sources.source_files": ("tests/reporting/test_sal_reporting.py", "source_files("),
    "reporting.export.export": ("tests/reporting/test_export.py", "make them again, or say --mixed"),
    "reporting.release.write_release": ("tests/reporting/test_release.py", "write_release("),
    "reporting.figures.sal_figure5.grid": ("tests/reporting/test_sal_reporting.py", "every network diverged"),
    "workflow.report.write_report_page": ("tests/reporting/test_opening.py", r"audit\.parquet"),
    "populations.nullspace.nullspace_ratios": ("tests/populations/test_nullspace.py", "leave it out of nullspace"),
    "populations.rules.gnt.targets": ("tests/populations/test_target_propagation.py", "pseudo-inverse"),
    "models.by_factory.factory_spec": ("tests/models/test_by_factory.py", "makes another model"),
    "models.by_factory.made_by_factory": ("tests/models/test_by_factory.py", "test_a_changed_factory_is_noticed"),
    "models.factories.make_model": ("tests/models/test_factories.py", "make_model("),
    "models.fitting.check_fits": ("tests/workflows/test_models_workflow.py", "cannot take images"),
    "models.storage.load_classifier": ("tests/models/test_by_factory.py", "load_classifier"),
    "models.torchvision_networks.torchvision_network": ("tests/models/test_factories.py", "has no classifier"),
}

#: How a docstring promises: "Raises ...", or within a sentence. Others only speak of errors.
_PROMISE = re.compile(r"\bRaises\b|\braises UserError\b|\binto a UserError\b")

#: A docstring may promise what another function promises, by its name.
_LIKE_ANOTHER = re.compile(r"[Rr]aises \w+ (as|likewise)")


@cache
def promises() -> frozenset[str]:
    """Returns the functions, methods and classes that say what they raise, by their names below the package."""
    return frozenset(f"{module}.{name}" for module, text in sources() for name in _promising(ast.parse(text)))


def sources() -> Iterator[tuple[str, str]]:
    """Yields name and text of each module that promises anything."""
    for room in ROOMS:
        for path in sorted((PACKAGE / room).rglob("*.py")):
            text = path.read_text(encoding="utf-8")
            if _PROMISE.search(text):
                module = path.relative_to(PACKAGE).with_suffix("").as_posix().replace("/", ".")
                yield module.removesuffix(".__init__"), text


def _promising(node: ast.AST, above: str = "") -> Iterator[str]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) and _is_public(child.name):
            if _PROMISE.search(ast.get_docstring(child) or ""):
                yield above + child.name
            if isinstance(child, ast.ClassDef):
                yield from _promising(child, f"{above}{child.name}.")
        elif isinstance(child, ast.If | ast.Try | ast.With):
            yield from _promising(child, above)


def _is_public(name: str) -> bool:
    return not name.startswith("_") or name.endswith("__")


# --- core and compute ---------------------------------------------------------------------------------------------


def held(folder: Path) -> None:
    with (folder / "x.lock").open("wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with files.only_one_writer(folder / "x"):
            pass


def large_table(rows: int) -> io.BytesIO:
    buffer = io.BytesIO()
    pd.DataFrame({"a": np.zeros(rows, np.int8)}).to_parquet(buffer)
    buffer.seek(0)
    return buffer


def parquet_without_seal(folder: Path) -> Path:
    pd.DataFrame({"a": [1]}).to_parquet(folder / "f")
    return folder / "f"


def sealed_json(folder: Path, **change: Any) -> Path:
    return written(folder / "f.json", json.dumps(files.seal({"a": 1}) | change))


def broken_module(folder: Path) -> object:
    written(folder / "promised_broken.py", "def (")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        return modules.imported("promised_broken")


def with_environment(call: Callable[[], object], **variables: str) -> Provoke:
    def provoke(folder: Path) -> object:
        with pytest.MonkeyPatch.context() as patch:
            for name, value in variables.items():
                patch.setenv(name, value)
            return call()

    return provoke


def idle_settings() -> OptimizerSettings:
    return OptimizerSettings(kind="adam", momentum=0.5)


CORE: dict[str, Promised] = {
    "core.effects.check_effects": (UserError, [lambda f: effects.check_effects([idle_settings()], "here")]),
    "core.files.check_plain": (OSError, [files.check_plain, lambda f: files.check_plain(Path("/dev/zero"))]),
    "core.files.read_plain": (OSError, [files.read_plain, lambda f: files.read_plain(written(f / "x"), 3)]),
    "core.run_memory.known_sha256": (
        OSError,
        [run_memory.known_sha256, lambda f: run_memory.known_sha256(Path("/dev/zero"))],
    ),
    "core.files.only_one_writer": (UserError, [held]),
    "core.files.write_json": (ValueError, [lambda f: files.write_json(f / "x", float("nan"))]),
    "core.files.json_bytes": (ValueError, [lambda f: files.json_bytes([float("inf")])]),
    "core.files.read_parquet": (
        ValueError,
        [lambda f: files.read_parquet(written(f / "x")), lambda f: files.read_parquet(parquet_without_seal(f))],
    ),
    "core.files.read_csv": (
        ValueError,
        [
            lambda f: files.read_csv(written(f / "x", b"")),
            lambda f: files.read_csv(written(f / "x", "a," * 5000 + "\n")),
        ],
    ),
    "core.files.read_json": (
        UserError,
        [
            lambda f: files.read_json(f / "absent", "a note"),
            lambda f: files.read_json(written(f / "x"), "a note"),
            lambda f: files.read_json(f, "a note"),
            (
                lambda f: files.read_json(sealed_json(f, a=2), "a note"),
                "is damaged or was edited: its seal is not that of its content",
            ),
            (lambda f: files.read_json(written(f / "x", '{"a": 1}'), "a note"), "has no seal"),
        ],
    ),
    "core.gradients.parse_gradient": (
        UserError,
        [lambda f: gradients.parse_gradient("exakt"), lambda f: gradients.parse_gradient("through:")],
    ),
    "core.identity.check_identity": (
        UserError,
        [
            lambda f: identity.check_identity(f, "the model", {"rule": "bp"}, {"rule": "fa"}),
            lambda f: identity.check_identity(f, "the model", None, {"rule": "fa"}),
        ],
    ),
    "core.modules.imported": (UserError, [broken_module, lambda f: modules.imported("creditflow.not_there")]),
    "core.plugins.check": (UserError, [lambda f: plugins.check("rule", "fá"), lambda f: plugins.check("attack", "")]),
    "core.plugins.load": (UserError, [lambda f: plugins.load("rule", "usff")]),
    "core.plugins.settings_class": (UserError, [lambda f: plugins.settings_class("attack", "pgdd")]),
    "core.plugins.declared": (UserError, [lambda f: plugins.declared("rule", "bp", "not_declared")]),
    "core.settings.parse": (
        UserError,
        [
            lambda f: settings.parse(OptimizerSettings, {"kindd": "adam"}, "here"),
            lambda f: settings.parse(OptimizerSettings, {"kind": "addam"}, "here"),
            lambda f: settings.parse(TrainingSettings, {}, "here"),
            lambda f: settings.parse(TrainingSettings, {"epochs": 0, "batch_size": 1, "learning_rate": 1.0}, "here"),
        ],
    ),
    "core.tables.check_table": (
        ValueError,
        [lambda f: tables.check_table(large_table(tables._MAX_CELLS + 1))],
    ),
    "core.tables.check_csv": (ValueError, [lambda f: tables.check_csv(b"," * 2000)]),
    "compute.device.use_device": (
        UserError,
        [
            lambda f: device.use_device("cdua", 1),
            lambda f: device.use_device("meta", 1),
            lambda f: device.use_device("cuda:99", 1),
        ],
    ),
    "compute.gpus.check_promised": (UserError, [with_environment(gpus.check_promised, CUDA_VISIBLE_DEVICES="3")]),
}


# --- records ------------------------------------------------------------------------------------------------------

KEYS = Keys("e", "classification", "d", "b", "bp", 0, "clean", "none")


def a_record(path: Path, model: str = "m", value: float = 0.5, **keys: Any) -> Path:
    outcomes = {"correct": np.array([[True, False]]), "example": np.arange(2)}
    metrics = [Metric("accuracy", None, value, 2)]
    facts = {"settings": {"model": {"weights": model}}}
    record.write_record(path, dataclasses.replace(KEYS, **keys), metrics, outcomes, **facts)
    return path


def edited(path: Path, **change: Any) -> Path:
    content = json.loads(path.read_text(encoding="utf-8"))
    content.pop("seal")
    return written(path, json.dumps(files.seal(content | change)))


def without_outcomes(folder: Path) -> Path:
    path = a_record(folder / "r.json")
    path.with_suffix(".safetensors").unlink()
    return path


RECORDS: dict[str, Promised] = {
    "records.agreement.mistake": (
        Exception,
        [lambda f: agreement.mistake({}, {}), lambda f: agreement.mistake({"keys": 1, "metrics": 2}, {})],
    ),
    "records.record.write_record": (ValueError, [lambda f: a_record(f / "r.json", value=float("nan"))]),
    "records.record.read_record": (
        UserError,
        [
            lambda f: record.read_record(f / "absent.json"),
            lambda f: record.read_record(without_outcomes(f)),
            lambda f: record.read_record(edited(a_record(f / "r.json"), format=99)),
            lambda f: record.read_record(a_record(f / "r.json", value=0.9)),
        ],
    ),
    "records.listing.listed_paths": (
        UserError,
        [
            lambda f: listing.listed_paths(written(f / "l", b"\xff\xfe")),
            lambda f: listing.listed_paths(written(f / "l", "\n")),
        ],
    ),
    "records.listing.read_listed": (UserError, [lambda f: listing.read_listed(written(f / "l", "absent.json"))]),
    "records.listing.read_records": (
        UserError,
        [
            lambda f: listing.read_records([a_record(f / "a.json")], lambda path: {"rule": "fa"}),
            lambda f: listing.read_records([a_record(f / "a.json"), a_record(f / "b.json")]),
            lambda f: listing.read_records([a_record(f / "a.json"), a_record(f / "b.json", "other", attack="pgd")]),
        ],
    ),
}


CASES = (CORE | RECORDS | DATA | TRAINING | MODELS | POPULATIONS | REPORTING | WORKFLOW) | (
    ATTACKS | VERDICT | DERIVATIVES | FEEDBACK | INSTRUMENT | STAGES | WEIGHTS
)


def test_every_promise_has_a_case() -> None:
    assert sorted(promises() - CASES.keys() - ELSEWHERE.keys()) == []


def test_cases_are_of_functions_that_promise() -> None:
    assert sorted(CASES.keys() - promises()) == []


@pytest.mark.parametrize("name", sorted(promises() & ELSEWHERE.keys()))
def test_what_is_tried_elsewhere_is(name: str) -> None:
    path, words = ELSEWHERE[name]
    assert words in (ROOT / path).read_text(encoding="utf-8"), f"{path} does not try {name}"


def cases() -> Iterator[Any]:
    for name, (error, provocations) in CASES.items():
        for number, entry in enumerate(provocations):
            provoke, words = entry if isinstance(entry, tuple) else (entry, "")
            yield pytest.param(name, error, provoke, words, id=f"{name}-{number}")


@pytest.mark.parametrize(("name", "error", "provoke", "words"), list(cases()))
def test_a_promise_is_kept(
    name: str, error: type[Exception] | tuple[type[Exception], ...], provoke: Provoke, words: str, tmp_path: Path
) -> None:
    with pytest.raises(error) as caught:
        provoke(tmp_path)
    message = str(caught.value)
    assert message and "\n" not in message and words in message
    value: Any = creditflow
    for part_of_name in name.split("."):
        value = getattr(value, part_of_name)
    kinds = {kind.__name__ for kind in type(caught.value).__mro__[:-3]}  # without Exception and what is above it
    assert any(kind in value.__doc__ for kind in kinds) or _LIKE_ANOTHER.search(value.__doc__)
