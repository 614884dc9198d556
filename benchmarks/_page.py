"""Tables that a benchmark puts into a page of docs/: each stands between `<!-- table: NAME -->` and `<!-- end -->`."""

import re
from pathlib import Path

import pandas as pd

from creditflow.core.files import write_atomically


def put_tables(page: Path, tables: dict[str, list[dict[str, str]]]) -> None:
    """Writes the rows of each table between the marks with its name; the text around them stays as it is.

    Ends the process with one line if the page has no such marks. The tables are printed, too.
    """
    text = page.read_text(encoding="utf-8")
    for name, rows in tables.items():
        table = pd.DataFrame(rows).to_markdown(index=False, disable_numparse=True)
        print(f"\n{table}\n", flush=True)
        marks = re.compile(rf"(<!-- table: {re.escape(name)} -->\n).*?(<!-- end -->)", re.DOTALL)
        if not marks.search(text):
            raise SystemExit(f"error: {page} has no marks for the table {name!r}: put <!-- table: {name} --> there")
        text = marks.sub(lambda match, table=table: f"{match[1]}{table}\n{match[2]}", text)
    write_atomically(page, text.encode())
