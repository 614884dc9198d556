"""What Snakemake's report takes: tables and figures, which must be whole. It imports nothing heavy."""

from collections.abc import Iterable
from pathlib import Path

from creditflow.reporting.forms import check_forms
from creditflow.workflow import layout
from creditflow.workflow.experiments import Experiments


def check_report(experiments: Experiments, targets: Iterable[str], results: Path) -> None:
    """Checks the tables and figures of experiments before a report shows them.

    Those that are not made yet are left out: Snakemake says so itself. `targets` are names of experiments and paths of
    their files; other targets are left out, too.

    Raises UserError, which names the file, if one is damaged or belongs to something else.
    """
    asked = [Path(target).parts[1] if target.startswith(f"{layout.RESULTS}/") else target for target in targets]
    for name in dict.fromkeys(asked):
        for kind, place, shown in (("table", layout.MAKE_TABLE, ".html"), ("figure", layout.PLOT_FIGURE, ".svg")):
            for product in experiments[name].keys[f"{kind}s"] if name in experiments else ():
                path = place.path(results, shown, experiment=name, **{kind: product})
                if path.exists():
                    check_forms(path, {"experiment": name, kind: product})
