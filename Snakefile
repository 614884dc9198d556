"""From data to the report: fetch, prepare, pretrain, finetune, evaluate, attack, collect, tables, figures."""

import sys
from pathlib import Path

from snakemake.utils import min_version

min_version("9.20")
# The clone's own library comes first: an installed one may be another version, and Snakemake may run in another folder.
sys.path.insert(0, str(Path(workflow.current_basedir.get_path_or_uri(secret_free=False)).resolve() / "src"))

try:
    from creditflow.workflow import dependence, layout, loading, sources  # with all that the rules import later
    from creditflow.workflow.container import image_path
    from creditflow.workflow.session import Session
    from creditflow.workflow.wildcards import constraints
except SyntaxError as error:  # a file that somebody is editing or merging; Snakemake would print a traceback
    print(f"error: {error.filename}, line {error.lineno}: not valid Python ({error.msg}); mend it", file=sys.stderr)
    sys.exit(2)

SESSION = Session(workflow)
SESSION.read_config(config)
SESSION.complete(config)


include: "rules/common.smk"
include: "rules/starting.smk"
include: "rules/expected.smk"
include: "rules/attacking.smk"
include: "rules/shown.smk"


FLAVOUR = config["container"]["flavour"]
IMAGE = image_path(layout.in_clone("containers"), layout.in_clone("envs/requirements.txt"), FLAVOUR)


# Used by `--use-apptainer`; the project's code comes from the clone, which containers see.
container: str(IMAGE)


wildcard_constraints:
    **constraints(EXPERIMENTS),


rule all:
    """The default experiment (`default_experiment` in config/config.yaml)."""
    default_target: True
    input:
        wanted(config["default_experiment"]),


# Two targets per experiment: `snakemake --cores 8 <experiment>`, and its downloads alone.
for name in EXPERIMENTS:

    rule:
        name:
            name
        input:
            wanted(name),

    rule:
        name:
            f"prefetch_{name}"
        input:
            downloads(name),
        localrule: True


include: "rules/data.smk"
include: "rules/train.smk"
include: "rules/models.smk"
include: "rules/populations.smk"
include: "rules/nullspace.smk"
include: "rules/measure.smk"
include: "rules/retrieval.smk"
include: "rules/report.smk"


SESSION.check_targets(EXPERIMENTS, config["default_experiment"])
SESSION.check_report(EXPERIMENTS, config["default_experiment"])
SESSION.note_rules()


# What a report opens on: the experiment's verdicts and its first figure.
report: SESSION.report_page(EXPERIMENTS, config["default_experiment"])


SESSION.warn(EXPERIMENTS.warnings())
SESSION.show_in_containers(EXPERIMENTS)
SESSION.check_machine(IMAGE, config)


onstart:
    SESSION.begin(EXPERIMENTS)


SESSION.begin_in_modules(EXPERIMENTS)
