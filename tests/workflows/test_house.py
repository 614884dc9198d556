"""The house of a public project: its version is one, its forms can be filled in, and a release needs what is there."""

import re
from pathlib import Path

import pytest
import yaml

import creditflow
from helpers import ROOT

RELEASE = (ROOT / ".github/workflows/release.yaml").read_text(encoding="utf-8")


def test_the_version_is_the_same_everywhere() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    released = re.findall(r"^## (\S+)(?: - (\S+))?$", changelog, re.MULTILINE)
    version, date = next(entry for entry in released if entry[0] != "Unreleased")
    assert version == citation["version"] == creditflow.__version__
    assert date == str(citation["date-released"])


def test_the_notes_of_a_release_are_grouped() -> None:
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    notes = changelog.split("\n## ")[1]
    assert re.findall(r"^### (.*)$", notes, re.MULTILINE) == ["Added", "Changed", "Removed", "Fixed"]


@pytest.mark.parametrize("path", sorted((ROOT / ".github/ISSUE_TEMPLATE").glob("*.yml")), ids=lambda path: path.stem)
def test_forms_of_issues_have_what_they_need(path: Path) -> None:
    form = yaml.safe_load(path.read_text(encoding="utf-8"))
    if path.stem == "config":
        assert form == {"blank_issues_enabled": True}
        return
    assert form.keys() == {"name", "description", "labels", "body"}
    fields = [field["id"] for field in form["body"]]
    assert len(set(fields)) == len(fields) > 1
    for field in form["body"]:
        assert field["type"] in ("input", "textarea", "checkboxes") and field["attributes"]["label"]
    named = re.findall(r"\b[\w/]+\.md\b", path.read_text(encoding="utf-8"))
    assert [name for name in named if not (ROOT / name).is_file()] == []


@pytest.mark.parametrize(
    "name", ["SUPPORT.md", "SECURITY.md", "CODE_OF_CONDUCT.md", ".github/pull_request_template.md"]
)
def test_what_pages_of_the_house_name_is_there(name: str) -> None:
    text = (ROOT / name).read_text(encoding="utf-8")
    paths = re.findall(r"\]\((?!https:)([^)]+)\)", text) + re.findall(r"`([\w/]+\.(?:py|md))`", text)
    assert [path for path in paths if not (ROOT / path).is_file()] == []
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert all(f"\n{target}:" in makefile for target in re.findall(r"`make ([\w-]+)`", text))


def test_a_release_is_made_of_targets_that_exist() -> None:
    (job,) = yaml.safe_load(RELEASE)["jobs"].values()
    commands = "\n".join(step.get("run", "") for step in job["steps"])
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = [word for line in re.findall(r"make ([a-z -]+)", commands) for word in line.split()]
    assert targets == ["install", "docs", "demo", "release-models"]
    assert [target for target in targets if f"\n{target}:" not in makefile] == []
    assert "--verify-tag" in commands and 'test "$TAG" = "v$version"' in commands


def test_the_entry_of_the_workflow_catalogue_is_true() -> None:
    usage = yaml.safe_load((ROOT / ".snakemake-workflow-catalog.yml").read_text(encoding="utf-8"))["usage"]
    assert usage.keys() == {"mandatory-flags", "software-stack-deployment", "report"}
    assert usage["software-stack-deployment"] == {"conda": False, "apptainer": True, "apptainer+conda": False}
    readme = (ROOT / "README.md").read_text(encoding="utf-8").lower()
    assert "snakemake" in readme and "workflow" in readme  # how the catalogue finds repositories
    assert (ROOT / "Snakefile").is_file() and not (ROOT / "workflow").exists() and list((ROOT / "rules").glob("*.smk"))
    assert "module creditflow:" in (ROOT / "config/README.md").read_text(encoding="utf-8")
    assert "container: str(IMAGE)" in (ROOT / "Snakefile").read_text(encoding="utf-8")
