"""What Snakemake's report takes: tables and figures, which must be whole, and the page on which it opens.

It imports nothing heavy before a page is written.
"""

from collections.abc import Iterable
from pathlib import Path

from creditflow.core import files, plugins
from creditflow.reporting.forms import check_forms
from creditflow.workflow import layout
from creditflow.workflow.experiments import Experiment, Experiments
from creditflow.workflow.outputs import record_paths


def check_report(experiments: Experiments, targets: Iterable[str], results: Path) -> None:
    """Checks the tables and figures of experiments before a report shows them.

    Those that are not made yet are left out: Snakemake says so itself. `targets` are names of experiments and paths of
    their files; other targets are left out, too.

    Raises UserError, which names the file, if one is damaged or belongs to something else.
    """
    for name in _asked(targets):
        for kind, place, shown in (("table", layout.MAKE_TABLE, ".html"), ("figure", layout.PLOT_FIGURE, ".svg")):
            for product in experiments[name].keys[f"{kind}s"] if name in experiments else ():
                path = place.path(results, shown, experiment=name, **{kind: product})
                if path.exists():
                    check_forms(path, {"experiment": name, kind: product})


def write_report_page(experiments: Experiments, targets: Iterable[str], results: Path) -> Path | None:
    """Writes the page on which a report of finished experiments opens, and returns its path.

    Args:
        experiments: all experiments.
        targets: names of experiments and paths of their files; other targets are left out.
        results: folder of results.

    Returns:
        The path of the page, absolute; None if no target is an experiment.

    Raises:
        UserError: the audit or a record of an experiment is damaged or belongs to something else.
    """
    named = [name for name in _asked(targets) if name in experiments]
    if not named:
        return None
    page = Path(".snakemake/creditflow/report.rst").absolute()
    text = "\n".join(_page(experiments[name], results) for name in named)
    # Snakemake fills in what a page has in braces; ours has nothing to fill in.
    files.write_atomically(page, f"{{% raw %}}\n{text}\n{{% endraw %}}\n".encode())
    return page


def _asked(targets: Iterable[str]) -> list[str]:
    """Returns the names that targets may be, or have in their paths."""
    start = f"{layout.RESULTS}/"
    return list(dict.fromkeys(Path(name).parts[1] if name.startswith(start) else name for name in targets))


def _page(experiment: Experiment, results: Path) -> str:
    from creditflow.reporting.collection import read_frame
    from creditflow.reporting.entries import entry_part
    from creditflow.reporting.opening import opening

    path = layout.AUDIT.path(results, ".parquet", experiment=experiment.name)
    has_audit = "audit" in experiment.keys and path.exists()
    frame = read_frame(path, "audit", {"experiment": experiment.name}) if has_audit else None
    figure = None
    for name in list(experiment.keys["figures"])[:1]:
        bitmap = layout.PLOT_FIGURE.path(results, ".png", experiment=experiment.name, figure=name)
        if bitmap.exists():
            figure = (bitmap, " ".join(plugins.docstring("figure", name).split()))
    questions = sorted({entry_part(kind, name) for kind in ("table", "figure") for name in experiment.keys[f"{kind}s"]})
    description, facts = experiment.keys["description"], _facts(experiment, results)
    return opening(experiment.name, description, frame, figure, questions, facts)


def _facts(experiment: Experiment, results: Path) -> list[str]:
    """Returns sentences on how the records of an experiment were made, as far as they are there."""
    paths = [path for path in record_paths(experiment, results) if path.exists()]
    contents = [files.read_json(path, "a record") for path in paths]
    made = [content["provenance"] for content in contents if "provenance" in content]
    seeds = ", ".join(map(str, experiment.keys["seeds"]))
    sentences = [f"{len(paths)} records, seeds {seeds}."]
    for words, name in (("Commit", "git_commit"), ("creditflow", "creditflow"), ("Python", "python")):
        values = sorted({str(fact[name]) for fact in made if name in fact})
        sentences += [f"{words}: {', '.join(values)}."] if values else []
    return [" ".join(sentences)]
