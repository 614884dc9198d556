"""One run of Snakemake: its command line and environment, and what the workflow does around its jobs.

All that reaches into Snakemake's inside is here, in `cheaper.py` and in `module_use.py`. It was checked with Snakemake
9.27; `check_version` refuses another major version.
"""

import argparse
import os
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import snakemake

from creditflow.compute import gpus
from creditflow.core import environment
from creditflow.core.errors import UserError
from creditflow.core.files import warn
from creditflow.core.merging import merged
from creditflow.workflow import (
    cheaper,
    container,
    failures,
    forkserver,
    interruption,
    layout,
    locks,
    module_use,
    preflight,
    progress,
)
from creditflow.workflow.experiments import Experiments
from creditflow.workflow.image_plugins import check_plugins
from creditflow.workflow.outputs import user_files
from creditflow.workflow.report import check_report, write_report_page
from creditflow.workflow.requests import check_targets
from creditflow.workflow.yaml_files import numbers_in, read_mapping

Result = TypeVar("Result")

#: The first major version of Snakemake that this workflow does not know.
_UNKNOWN_MAJOR_VERSION = 10


def check_version(version: str = snakemake.__version__) -> None:
    """Ends the workflow in one line if this Snakemake is newer than what the workflow was made for."""
    if int(version.split(".")[0]) >= _UNKNOWN_MAJOR_VERSION:
        _end(
            f"this workflow needs Snakemake 9.20 or newer, but below {_UNKNOWN_MAJOR_VERSION}, not {version};"
            f" install one with `pip install 'snakemake>=9.20,<{_UNKNOWN_MAJOR_VERSION}'`"
        )


def explained(function: Callable[..., Result], *arguments: Any) -> Result:
    """Calls a function. A mistake of the user's ends the workflow in one line."""
    try:
        return function(*arguments)
    except UserError as error:
        _end(str(error))


def _end(message: str) -> NoReturn:
    """Ends the process. A WorkflowError would make Snakemake print a place in the Snakefile beside the message."""
    print(f"error: {message}", file=sys.stderr)
    sys.exit(2)


class Session:
    """What the workflow knows of the Snakemake that has read it, from the beginning of the Snakefile to the last job.

    Args:
        workflow: Snakemake's object of this name.
    """

    def __init__(self, workflow: Any) -> None:
        check_version()
        explained(preflight.check_place, layout.CLONE)
        self.workflow = workflow
        self.is_module = not workflow.modifier.is_main_snakefile()
        """Whether another Snakefile uses this workflow as a module; its rules may be read later than ours."""
        self.options = command_line(workflow.is_main_process)
        environment.clean(os.environ)
        use_this_python()
        keep_caches_here(Path.cwd())
        cheaper.search_for_no_garbage_yet()
        cheaper.look_at_memory_rarely()
        cheaper.schedule_by_one_timer()
        if workflow.is_main_process:
            if not self.is_dry:
                interruption.note()
            if os.environ.get(progress.VARIABLE) and not self.is_dry:
                # before the failures, which are told after its line has ended
                progress.show(sys.stderr, tells_failures=not self.is_module)
            explain_failures(self.is_module, is_silent="all" in map(str, self.options.quiet or ()))
            explained(locks.release_dead_locks, Path.cwd())

    @property
    def config_file(self) -> Path:
        """The configuration: the working directory's, but the clone's within a module, as the other is its user's."""
        path = "config/config.yaml"
        return layout.in_clone(path) if self.is_module else layout.here_or_in_clone(path)

    def read_config(self, config: dict[str, Any]) -> None:
        """Reads the configuration as experiments are read (YAML 1.2), with what the command line says over it.

        Snakemake's `configfile:` would read YAML 1.1, in which `1e-3` is a text. A module that is given a `config` has
        that instead.
        """
        if self.is_module and self.workflow.modifier.skip_configfile:
            return
        settings = self.workflow.config_settings
        paths = [*([] if settings.replace_workflow_config else [self.config_file]), *settings.configfiles]
        values: dict[str, Any] = {}
        for path in paths:
            values = merged(values, explained(read_mapping, Path(path)))
        config.clear()
        config.update(merged(values, numbers_in(dict(settings.config))))
        self.workflow.configfiles.append(str(self.config_file))

    def complete(self, config: dict[str, Any]) -> None:
        """Adds what the `config` of a module statement does not say, from the clone's configuration."""
        if self.is_module:
            config.update(merged(explained(read_mapping, self.config_file), config))

    @property
    def is_dry(self) -> bool:
        """Whether nothing is to be made."""
        return bool(self.options.dryrun)

    @property
    def targets(self) -> list[str]:
        """What the user asks for: names of rules and paths of files; empty for the default."""
        return list(self.options.targets or ())

    def warn(self, messages: Iterable[str]) -> None:
        """Prints warnings once; the processes that Snakemake starts for single jobs read the workflow again."""
        for message in messages if self.workflow.is_main_process else ():
            warn(message)

    def check_targets(self, experiments: Experiments, default: str) -> None:
        """Ends the workflow in one line if nothing can make what it is asked for. Snakemake looks at that later."""
        if self.workflow.is_main_process and not self.is_module:
            explained(check_targets, self.targets, experiments, [rule.name for rule in self.workflow.rules], default)

    def check_report(self, experiments: Experiments, default: str) -> None:
        """Ends the workflow in one line if it is to write a report, and a table or figure in it is damaged."""
        if self._writes_report:
            explained(check_report, experiments, self._reported(default), layout.RESULTS)

    def report_page(self, experiments: Experiments, default: str) -> str:
        """Returns the page on which a report opens: that of its experiments, or a general one."""
        page = None
        if self._writes_report:
            page = explained(write_report_page, experiments, self._reported(default), layout.RESULTS)
        return str(page or "rules/captions/workflow.rst")

    @property
    def _writes_report(self) -> bool:
        return bool(self.workflow.is_main_process and self.options.report)

    def _reported(self, default: str) -> list[str]:
        """Returns the targets of a report, with the default experiment in the place of `all`."""
        return [default if target == "all" else target for target in self.targets or [default]]

    def show_in_containers(self, experiments: Experiments) -> None:
        """Makes the user's files that experiments name visible in containers."""
        files = (path for each in experiments.values() for path in user_files(each))
        preflight.bind_into_containers(preflight.outside(files))

    def check_machine(self, image: Path, config: Mapping[str, Any]) -> None:
        """Looks at what this run needs of the machine, before any job. A dry-run needs nothing.

        Ends the workflow in one line where something is missing.
        """
        preflight.bind_into_containers(config["data"]["search_paths"])
        if Path.cwd().resolve() != layout.CLONE:
            preflight.bind_into_containers([str(layout.CLONE)])
        if not self.workflow.is_main_process or self.is_dry:
            return
        explained(preflight.check_writable, _folders_in_use())
        if self._uses("APPTAINER"):
            explained(preflight.check_apptainer)
            explained(container.check_image, image, config["container"]["flavour"])
        if self.options.executor == "slurm":
            explained(preflight.check_slurm, self.options.slurm_status_command)
            return  # SLURM hands out the GPUs
        slots = self.workflow.global_resources.get("gpu")
        if slots and slots.value:
            explained(gpus.announce_slots, slots.value)

    def begin(self, experiments: Experiments) -> None:
        """Looks at all jobs before the first one runs, and makes ready what they share."""
        cheaper.search_for_garbage()
        jobs = list(self.workflow.dag.needrun_jobs())
        if self.is_module:
            jobs = [job for job, _ in module_use.by_script(jobs, layout.in_clone("src"))]
        self.check_folders(jobs)
        self.check_plugins(jobs, experiments)
        self.share_start_up(jobs)

    def begin_in_modules(self, experiments: Experiments) -> None:
        """Has `begin` called where this workflow is a module, as Snakemake does not run a module's `onstart`."""
        if self.is_module:
            module_use.call_at_start(self.workflow, lambda: self.begin(experiments))

    def check_folders(self, jobs: Iterable[Any]) -> None:
        """Ends the workflow in one line if jobs cannot write where their files belong, before any of them runs."""
        files = {path for job in jobs for path in (*job.output, *job.log, *([job.benchmark] if job.benchmark else []))}
        explained(preflight.check_permissions, sorted({Path(path).parent for path in files}))

    def check_plugins(self, jobs: Iterable[Any], experiments: Experiments) -> None:
        """Ends the workflow in one line if jobs run in containers and need plugins that the image has not."""
        if not self._uses("APPTAINER"):
            return
        for name in sorted({job.wildcards_dict.get("experiment") for job in jobs} & experiments.keys()):
            explained(check_plugins, experiments[name].keys, name, layout.in_clone("envs"))

    def note_rules(self) -> None:
        """Has Snakemake keep what it would find out again about the rules for each job."""
        cheaper.note_signatures(self.workflow.rules)

    def share_start_up(self, jobs: Iterable[Any]) -> None:
        """Has stages forked from one process that has loaded their libraries.

        This needs jobs on this machine, outside containers.
        """
        from snakemake.shell import shell

        elsewhere = self.workflow.deployment_settings.deployment_method or self.options.executor not in (None, "local")
        bash = Path(shell.get_executable() or "").name == "bash"
        if elsewhere or self.workflow.touch or sys.platform != "linux" or not bash:
            return
        stages = [Path(script).stem for _, script in module_use.by_script(jobs, layout.in_clone("src"))]
        if sum(stage in forkserver.STAGES for stage in stages) < forkserver.MIN_JOBS:
            return
        if function := forkserver.start(layout.script, trains=any(stage in forkserver.TRAINING for stage in stages)):
            before = shell._process_prefix or "set -euo pipefail; "  # another Snakefile may have set one
            shell.prefix(f"{before}{function}".replace("{", "{{").replace("}", "}}"))

    def _uses(self, method: str) -> bool:
        """Whether jobs run by a method of deployment, such as APPTAINER."""
        from snakemake.settings.types import DeploymentMethod

        return DeploymentMethod[method] in self.workflow.deployment_settings.deployment_method


def _folders_in_use() -> list[Path]:
    """Returns the folders in which Snakemake itself writes, and those of results down to an experiment's own."""
    state, results = Path(".snakemake"), layout.RESULTS
    known = [state / name for name in ("", "metadata", "incomplete", "locks", "log")]
    return [*known, results, results / "data", *(path for path in results.glob("*") if not path.is_file())]


def explain_failures(is_module: bool, is_silent: bool) -> None:
    """Has this process say at its end, after all that Snakemake prints, why jobs failed.

    Within a module, the jobs of other workflows are left out. `is_silent` says that Snakemake prints no errors.
    """
    from snakemake.logging import logger

    if any(isinstance(handler, failures.Failures) for handler in logger.handlers):
        return  # two modules of one workflow
    concerns = failures.runs_a_script_of(layout.CLONE / "src") if is_module else lambda command: True
    logger.addHandler(failures.Failures(concerns, is_silent=is_silent))


def command_line(is_main_process: bool) -> argparse.Namespace:
    """Returns the options that this Snakemake runs with, those of its profiles among them.

    Snakemake itself looks at targets and executor only after it has read the Snakefile. Where it is used as a library,
    or runs a single job in a process of its own, these are the options of a dry-run.
    """
    from snakemake.cli import get_argument_parser

    if not (is_main_process and "snakemake" in Path(sys.argv[0]).parts[-2:]):
        return _known(get_argument_parser(), ["--dryrun"])
    given = _known(get_argument_parser(), sys.argv[1:])
    name = given.workflow_profile or "default"
    profiles = [str(path) for path in (Path(name), Path("profiles", name)) if path.exists()]
    return _known(get_argument_parser([*(given.profile or []), *profiles[:1]]), sys.argv[1:])


def _known(parser: argparse.ArgumentParser, arguments: list[str]) -> argparse.Namespace:
    return parser.parse_known_args(arguments)[0]


def use_this_python() -> None:
    """Has stages run with the Python that runs Snakemake, also where its environment is not activated."""
    folder = str(Path(sys.executable).parent)
    os.environ["PATH"] = os.pathsep.join([folder, os.environ.get("PATH", "")])


def keep_caches_here(folder: Path) -> None:
    """Has whatever a library wants to cache stay in the working directory, in containers and outside."""
    for variable in ("XDG_CACHE_HOME", "TORCH_HOME", "MPLCONFIGDIR"):
        os.environ[variable] = str(folder / ".snakemake/cache" / variable.lower())
