"""From data to the report: fetch, prepare, pretrain, finetune, evaluate, attack, collect, tables, figures."""

from snakemake.utils import min_version

min_version("9.20")


configfile: "config/config.yaml"


report: "rules/captions/workflow.rst"


include: "rules/common.smk"


# Used by `--use-apptainer`; the project's code comes from the working directory.
container: str(IMAGE)


wildcard_constraints:
    experiment=one_of(EXPERIMENTS),
    source=one_of(plugins.names("dataset")),
    dataset=one_of(views()),
    backbone=one_of({*plugins.names("backbone"), *variants()}),
    rule=one_of({*plugins.names("rule"), *plugins.names("update_rule")}),
    attack=one_of(plugins.names("attack") + plugins.names("hash_attack")),
    gradient="exact|feedback|none",
    table=one_of(plugins.names("table")),
    figure=one_of(plugins.names("figure")),
    seed=r"[0-9]+",
    weights=r"[A-Z0-9_]+",


rule all:
    """The default experiment (`default_experiment` in config/config.yaml)."""
    default_target: True
    input:
        products(config["default_experiment"]),


# Two targets per experiment: `snakemake --cores 8 <experiment>`, and its downloads alone.
for name in EXPERIMENTS:

    rule:
        name:
            name
        input:
            products(name),

    rule:
        name:
            f"prefetch_{name}"
        input:
            downloads(name),
        localrule: True


include: "rules/data.smk"
include: "rules/train.smk"
include: "rules/populations.smk"
include: "rules/nullspace.smk"
include: "rules/measure.smk"
include: "rules/retrieval.smk"
include: "rules/report.smk"


check_targets()
check_machine()


onstart:
    share_start_up(workflow.dag.needrun_jobs())


onerror:
    explain_failures(log)
