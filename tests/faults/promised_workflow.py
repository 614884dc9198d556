"""What provokes the promised refusals of the workflow; see test_promises.py."""

from collections.abc import Callable
from pathlib import Path

import pytest

from creditflow.core.errors import UserError
from creditflow.workflow import (
    consistency,
    container,
    forkserver,
    generated,
    layout,
    loading,
    preflight,
    published_hyperparameters,
    requests,
    yaml_files,
)
from creditflow.workflow.experiments import Experiments, find
from faults.promised_data import Promised, Provoke, written

NONE = Experiments({}, {"broken": "here: it is broken"})
CHOSEN = {"file": "absent", "table": "table1", "row": "mnist", "dataset": "mnist", "variant": ""}


def without_programs(call: Callable[[], object]) -> Provoke:
    """Calls where no program is found."""

    def provoke(folder: Path) -> object:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("PATH", str(folder))
            return call()

    return provoke


def without_a_place_for_sockets(folder: Path) -> object:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tempfile.tempdir", str(folder / "absent"))
        return forkserver.launch([])


def table_that_is_not_there(folder: Path) -> object:
    (folder / "config").mkdir()
    written(folder / "config/README.md", "<!-- settings: not_there -->\n<!-- end -->\n")
    return generated.generated_files(folder)


def linked(folder: Path) -> Path:
    (folder / "link").symlink_to(folder / "absent/there")
    return folder / "link"


def image(folder: Path) -> Path:
    return written(folder / "creditflow-0.sif")


WORKFLOW: dict[str, Promised] = {
    "workflow.consistency.check_listed": (
        UserError,
        [
            lambda f: consistency.check_listed("fa", ["bp"], "rules", "here"),
            lambda f: consistency.check_listed("", [], "", ""),
        ],
    ),
    "workflow.container.check_image": (
        UserError,
        [lambda f: container.check_image(f / "absent.sif", "cpu"), lambda f: container.check_image(image(f), "cpu")],
    ),
    "workflow.experiments.find": (UserError, [lambda f: find(NONE, "broken"), lambda f: find(NONE, "brokn")]),
    "workflow.forkserver.launch": (OSError, [without_a_place_for_sockets]),
    "workflow.generated.generated_files": (UserError, [table_that_is_not_there]),
    "workflow.layout.Place.path": (KeyError, [lambda f: layout.FINETUNE.path(f, experiment="e")]),
    "workflow.loading.load_experiments": (
        UserError,
        [loading.load_experiments, lambda f: loading.load_experiments(f / "x")],
    ),
    "workflow.loading.load_experiment": (
        UserError,
        [
            lambda f: loading.load_experiment(f, "absent"),
            lambda f: loading.load_experiment(written(f / "mine.yaml").parent, "mine"),
            lambda f: loading.load_experiment(written(f / "mine.yaml", "extends: absent").parent, "mine"),
            lambda f: loading.load_experiment(written(f / "mine.yaml", "rulez: [bp]").parent, "mine"),
        ],
    ),
    "workflow.preflight.check_place": (UserError, [lambda f: preflight.check_place(Path("/a{b}"))]),
    "workflow.preflight.check_apptainer": (UserError, [without_programs(preflight.check_apptainer)]),
    "workflow.preflight.check_slurm": (UserError, [without_programs(lambda: preflight.check_slurm(None))]),
    "workflow.preflight.check_writable": (
        UserError,
        [lambda f: preflight.check_writable([written(f / "x")]), lambda f: preflight.check_writable([linked(f)])],
    ),
    "workflow.preflight.check_permissions": (
        UserError,
        [lambda f: preflight.check_permissions([written(f / "x") / "below"])],
    ),
    "workflow.published_hyperparameters.with_published": (
        UserError,
        [lambda f: published_hyperparameters.with_published({"hyperparameters": [CHOSEN]}, ["bp"], "here")],
    ),
    "workflow.requests.check_workflow": (UserError, [lambda f: requests.check_workflow({"device": "cpu"}, NONE)]),
    "workflow.requests.check_targets": (
        UserError,
        [
            lambda f: requests.check_targets([], NONE, ["all"], "quick"),
            lambda f: requests.check_targets(["x"], NONE, [], ""),
        ],
    ),
    "workflow.requests.check_target": (
        UserError,
        [
            lambda f: requests.check_target("broken", NONE, ["all"]),
            lambda f: requests.check_target("results/quick/x", NONE, ["all"]),
            lambda f: requests.check_target("config/experiments/broken.yaml", NONE, ["all"]),
        ],
    ),
    "workflow.yaml_files.read_mapping": (
        UserError,
        [
            lambda f: yaml_files.read_mapping(f / "absent"),
            yaml_files.read_mapping,
            lambda f: yaml_files.read_mapping(written(f / "x", "- a list")),
            lambda f: yaml_files.read_mapping(written(f / "x", "a: 1\na: 2")),
            lambda f: yaml_files.read_mapping(written(f / "x", "a: [")),
            lambda f: yaml_files.read_mapping(written(f / "x", b"\xff\xfe")),
        ],
    ),
    "workflow.yaml_files.read": (UserError, [lambda f: yaml_files.read(f / "absent")]),
}
