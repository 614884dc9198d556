"""What tables, figures and frames are made from: their inputs, and the options that name them."""

from creditflow.reporting.entries import entry_part, entry_title
from creditflow.workflow.sources import source_files


@once_per("experiment")
def records(wildcards):
    """All records of an experiment."""
    return list(map(str, outputs.record_paths(experiment(wildcards), RESULTS)))


def records_list(wildcards):
    """A file with the paths of all records: there are too many for a command line. A dry-run does not write it."""
    return listed(layout.records_list(wildcards.experiment), records(wildcards))


def listed(path, names):
    """A file with names, one on each line."""
    lines = "\n".join(names).encode()
    if not SESSION.is_dry and not (path.exists() and path.read_bytes() == lines):
        files.write_atomically(path, lines)
    return str(path)


def source(kind):
    """What a table or figure shows: frames of the experiment, and the published numbers that its settings choose."""
    return lambda given: list(map(str, explained(source_files, experiment(given), RESULTS, kind, given[kind])))


def shown(kind):
    """The option that names what a table or figure shows."""

    def option(given):
        names = source(kind)(given)
        if len(names) < 20:
            return ["--frame", *names]
        return ["--records-list", listed(layout.records_list(f"{given.experiment}.{kind}.{given[kind]}"), names)]

    return option


def caption(kind):
    """A table's or figure's caption: the docstring of the file that defines it."""
    return lambda wildcards: " ".join(plugins.docstring(kind, wildcards[kind]).split())


def part(kind):
    """The reader's question under which the report lists a table or figure."""
    return lambda wildcards: entry_part(kind, wildcards[kind])


def title(kind):
    """What the report calls a table or figure."""
    return lambda wildcards: {"what it shows": entry_title(kind, wildcards[kind])}
