"""How Sphinx makes the documentation: `make docs` writes it to build/docs, and every warning is an error.

The source folder is the repository itself. So each page is the Markdown file where it stands, and a relative link is
right both on the site and wherever the repository is shown. The site needs no network: it has the theme's own fonts and
scripts, and what a page would load from elsewhere, such as a badge, is left out.
"""

import gc
import inspect
import re
import sys
from pathlib import Path
from typing import Any

import yaml
from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.errors import ExtensionError
from sphinx.util import logging

sys.path.insert(0, str(Path(__file__).parents[1] / "src"))

import creditflow

# Sphinx reads all pages before it writes them. A search for garbage among them takes a tenth of the time.
gc.freeze()
gc.set_threshold(50_000)

project = "creditflow"
author = "The authors of creditflow"
version = release = creditflow.__version__
root_doc = "README"
highlight_language = "none"

extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
include_patterns = ["*.md", "docs/*", "docs/results/README.md", "docs/results/*/README.md", "examples/*.ipynb"]
include_patterns += ["config/README.md", "config/published/*", "profiles/*"]
exclude_patterns = [".*", "benchmarks", "build", "containers", "envs", "results", "rules", "src", "tests"]
suppress_warnings = ["config.cache"]

# Headings have the anchors that repositories' pages give them. Notebooks are shown as they were run.
myst_heading_anchors = 4
nb_execution_mode = "off"
nb_merge_streams = True

# Docstrings are plain text with `names` in backticks.
default_role = "code"
napoleon_use_ivar = True
autodoc_default_options = {"special-members": "__call__"}
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
maximum_signature_line_length = 90
add_module_names = False
toc_object_entries = False

html_theme = "furo"
html_theme_options = {"light_css_variables": {"code-font-size": "75%"}}  # lines of 100 characters fit
html_static_path = ["static"]
html_css_files = ["site.css"]
html_title = f"creditflow {release}"
html_copy_source = False
html_show_sourcelink = False
html_show_copyright = False
html_show_sphinx = False
html_additional_pages = {"index": "index.html"}
templates_path = ["templates"]

_NAVIGATION = Path(__file__).with_name("nav.yaml")
_REMOTE = re.compile(
    r"<(?:script|img|iframe|source)\b[^>]*\bsrc(?:set)?=[\"']?(?:https?:)?//[^\"'\s>]*"
    r"|<link\b(?![^>]*rel=[\"'](?:canonical|license))[^>]*\bhref=[\"']?(?:https?:)?//[^\"'\s>]*"
    r"|url\([\"']?(?:https?:)?//[^)]*|@import[^;]*//[^;]*"
)


def add_pages_below(app: Sphinx, page: str, source: list[str]) -> None:
    """Gives a page the table of contents that nav.yaml names below it."""
    for caption, pages in yaml.safe_load(_NAVIGATION.read_text(encoding="utf-8")).get(page, {}).items():
        options = [":hidden:", *([f":caption: {caption}"] if caption else [])]
        entries = [f"{title} </{path}>" for title, path in pages.items()]
        source[0] += "\n".join(["", "", "```{toctree}", *options, "", *entries, "```", ""])


def leave_out_remote_images(app: Sphinx, doctree: nodes.document) -> None:
    """Takes away images that would come from the network, with the links and paragraphs that hold nothing else."""
    for image in [*doctree.findall(nodes.image)]:
        if re.match(r"(https?:)?//", image["uri"]):
            node: nodes.Element = image
            while isinstance(node.parent, nodes.reference | nodes.paragraph) and not node.parent.astext().strip():
                if sum(not isinstance(child, nodes.Text) for child in node.parent.children) > 1:
                    break
                node = node.parent
            node.parent.remove(node)


def move_links_below_titles(app: Sphinx, doctree: nodes.document) -> None:
    """Puts links to files that stand in a heading below it, as the entries of a table of contents cannot hold them."""
    for title in doctree.findall(nodes.title):
        for link in [*title.findall(addnodes.download_reference)]:
            link.replace_self(link.children)
            link.children = [nodes.Text(Path(link["reftarget"]).name)]
            title.parent.insert(title.parent.index(title) + 1, nodes.paragraph("", "", link))


def as_restructured_text(app: Sphinx, what: str, name: str, value: Any, options: Any, lines: list[str]) -> None:
    """Translates a docstring, which is Markdown."""
    translated: list[str] = []
    fenced = False
    if what in ("attribute", "data", "property") and lines:
        lines[0] = lines[0].replace(": ", " - ", 1)  # napoleon takes what stands before a colon for a type
    for line in lines:
        if line.strip().startswith("```"):
            fenced = not fenced
            translated += ["::", ""] if fenced else [""]
        elif fenced:
            translated.append(f"    {line}")
        else:
            parts = re.split(r"(``.*?``|`[^`]*`)", line)
            parts[::2] = [re.sub(r"([*|\\])|(?<=\w)(_)(?!\w)", r"\\\1\2", part) for part in parts[::2]]
            translated.append("".join(parts))
    lines[:] = translated


def without_arguments(app: Sphinx, what: str, name: str, value: Any, *_: Any) -> tuple[str, str] | None:
    """Hides the arguments of a protocol, which nobody creates: those of its `__call__` count."""
    return ("", "") if getattr(value, "_is_protocol", False) and what == "class" else None


def warn_of_undocumented(app: Sphinx, what: str, name: str, value: Any, skip: bool, options: Any) -> None:
    """Warns of a public function, class or method that autodoc leaves out because it has no docstring."""
    defined = getattr(value, "fget", value)  # that of a property
    label = getattr(defined, "__name__", "_")
    ours = str(getattr(defined, "__module__", "")).startswith("creditflow")
    if skip and ours and not label.startswith("_") and not inspect.getdoc(defined):
        logging.getLogger(__name__).warning("%s.%s is public and has no docstring", defined.__module__, label)


def refuse_remote_files(app: Sphinx, problem: Exception | None) -> None:
    """Raises ExtensionError if a page or a style would load something from the network."""
    if problem is None:
        for path in sorted(Path(app.outdir).rglob("*.*")):
            if path.suffix in (".html", ".css") and (match := _REMOTE.search(path.read_text(encoding="utf-8"))):
                raise ExtensionError(f"{path.relative_to(app.outdir)} would load from the network: {match[0]}")


def setup(app: Sphinx) -> None:
    """Registers the functions above. All pages are read again when this file or the navigation has changed."""
    made_with = Path(__file__).read_text(encoding="utf-8") + _NAVIGATION.read_text(encoding="utf-8")
    app.add_config_value("made_with", made_with, "env")
    app.connect("source-read", add_pages_below)
    app.connect("doctree-read", leave_out_remote_images)
    app.connect("doctree-read", move_links_below_titles, priority=400)  # before the table of contents is made
    app.connect("autodoc-process-docstring", as_restructured_text, priority=400)  # before napoleon
    app.connect("autodoc-process-signature", without_arguments)
    app.connect("autodoc-skip-member", warn_of_undocumented)
    app.connect("build-finished", refuse_remote_files)
