"""Which files a table or figure is made from. Imports nothing heavy, for the workflow's sake."""

from pathlib import Path

from creditflow import plugins
from creditflow.errors import UserError
from creditflow.experiments import Experiment

#: The published numbers of a table that does not choose.
DEFAULT_PUBLISHED = "sign_symmetry"

_PUBLISHED = Path("config/published")


def source_files(experiment: Experiment, results: Path, kind: str, name: str) -> list[Path]:
    """Returns the frames that an experiment's table or figure (`kind`) shows, in the order of its `source`.

    Raises UserError if its settings choose published numbers that are not there.
    """
    settings = experiment.keys[f"{kind}s"].get(name, {})
    words = str(plugins.declared(kind, name, "source", "summary")).split()
    frames = {word: results / experiment.name / f"{word}.parquet" for word in words}
    if "published" in frames:
        chosen = str(settings.get("published", DEFAULT_PUBLISHED))
        known = sorted(path.stem for path in _PUBLISHED.glob("*.csv"))
        if chosen not in known:
            where = f"experiment {experiment.name}: {kind}s.{name}.published"
            raise UserError(f"{where}: unknown published numbers {chosen!r}{plugins.suggestion(chosen, known)}")
        frames["published"] = _PUBLISHED / f"{chosen}.csv"
    return list(frames.values())
