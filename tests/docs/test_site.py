"""`make docs` refuses a page with a fault, and its pages name all that there is."""

import io
import re
import shutil
import sys
from pathlib import Path

import pytest
from sphinx.application import Sphinx
from sphinx.errors import ExtensionError

import creditflow
from creditflow.core import plugins
from creditflow.workflow import layout
from helpers import ROOT

PAGES = {
    "README.md": """# Home
[![badge](https://example.org/badge.svg)](https://example.org) [page](docs/page.md#a-heading) [file](docs/data.csv)
[no page](docs/nowhere.md) [no heading](docs/page.md#no-heading) [nothing here](#nothing)

![a diagram](docs/diagram.svg)
""",
    "docs/page.md": """# Page

## A heading

### [table](data.csv)

```{eval-rst}
.. automodule:: creditflow_sample
   :members:
```
""",
    "docs/lost.md": "# Not in the navigation\n",
    "docs/data.csv": "1\n",
    "docs/diagram.svg": '<svg xmlns="http://www.w3.org/2000/svg"/>',
    "docs/nav.yaml": "README: {Group: {A title: docs/page}}\n",
    "src/creditflow_sample.py": '''"""A module."""


def explained(x):
    """Returns x*y and a_ | b.

    ```
    explained(*x)
    ```
    """


def unexplained():
    pass
''',
}


def built(folder: Path, pages: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> str:
    """Builds a site of these pages as `make docs` does, and returns its warnings."""
    for name, text in pages.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")
    shutil.copy(ROOT / "docs/conf.py", folder / "docs")
    for name in ("templates", "static"):
        shutil.copytree(ROOT / "docs" / name, folder / "docs" / name)
    monkeypatch.setattr(sys, "path", [*sys.path])
    warnings = io.StringIO()
    places = (str(folder), str(folder / "docs"), str(folder / "site"), str(folder / "doctrees"))
    Sphinx(*places, "html", status=None, warning=warnings).build()
    return warnings.getvalue()


def test_each_fault_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    warnings = built(tmp_path, PAGES, monkeypatch)
    faults = ["nowhere.md", "no-heading", "nothing", "lost.md", "creditflow_sample.unexplained is public"]
    assert len(warnings.splitlines()) == len(faults), warnings
    for fault in faults:
        assert fault in warnings
    home, page = ((tmp_path / "site" / name).read_text(encoding="utf-8") for name in ("README.html", "docs/page.html"))
    # The badge would come from the network. All else is there: links, the diagram, the docstring as it is.
    assert "badge" not in home and 'src="_images/diagram.svg"' in home and 'href="docs/page.html#a-heading"' in home
    assert "x*y and a_ | b." in page and "explained(*x)" in page
    (copy,) = re.findall(r'href="\.\./(_downloads/[^"]+)"[^>]*>.*?data\.csv', page)
    assert (tmp_path / "site" / copy).read_text(encoding="utf-8") == "1\n"
    assert "README.html" in (tmp_path / "site/index.html").read_text(encoding="utf-8")


def test_what_would_be_loaded_from_the_network_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pages = {"README.md": '# Home\n\n<img src="https://example.org/x.png">\n', "docs/nav.yaml": "{}\n"}
    with pytest.raises(ExtensionError, match=r"README\.html would load from the network: .*example\.org"):
        built(tmp_path, pages, monkeypatch)


def test_the_reference_has_every_public_name() -> None:
    page = (ROOT / "docs/reference.md").read_text(encoding="utf-8")
    names = set(re.findall(r"^\.\. auto(?:function|class):: creditflow\.(\w+)$", page, re.MULTILINE))
    assert names == set(creditflow.__all__) - {"__version__"}


def test_the_diagram_has_every_rule() -> None:
    boxes = re.findall(r"<text [^>]*>(\w+)</text>", (ROOT / "docs/pictures/workflow.svg").read_text(encoding="utf-8"))
    rules = {place.rule for place in vars(layout).values() if isinstance(place, layout.Place)}
    assert {"report", *rules} <= set(boxes)


def test_every_experiment_has_a_command() -> None:
    page = (ROOT / "docs/reproduce.md").read_text(encoding="utf-8")
    named = re.findall(r"^\| `snakemake .* ([a-z0-9_]+)` \|", page, re.MULTILINE)
    assert sorted(named) == sorted(path.stem for path in (ROOT / "config/experiments").glob("*.yaml"))


def test_every_kind_of_plugin_can_be_added() -> None:
    page = (ROOT / "docs/extend.md").read_text(encoding="utf-8")
    folders = re.findall(r"\| `src/creditflow/([a-z/]+)/<id>\.py` \|", page)
    assert sorted(folders) == sorted(plugins.ROOMS.values())
