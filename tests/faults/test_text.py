"""Text and paths are read as people write them: `~`, `$VAR`, byte order marks, Windows line ends, `1e-4`."""

import ast
from pathlib import Path
from typing import Any

import pytest

from creditflow.core.errors import UserError
from creditflow.core.files import as_path
from creditflow.core.settings import SettingsModel, parse
from creditflow.reporting.published import read_published
from creditflow.stages.command_line import existing_file, file_path
from creditflow.workflow import published_hyperparameters
from creditflow.workflow.loading import load_experiment
from creditflow.workflow.outputs import weights_file
from creditflow.workflow.yaml_files import numbers_in, read_mapping
from helpers import ROOT, project, snakemake
from workflows.test_sign_symmetry_workflow import TINY

#: How editors on other systems save the same text.
SAVED = {
    "as it is": lambda text: text.encode(),
    "byte order mark": lambda text: b"\xef\xbb\xbf" + text.encode(),
    "Windows line ends": lambda text: text.replace("\n", "\r\n").encode(),
    "both": lambda text: b"\xef\xbb\xbf" + text.replace("\n", "\r\n").encode(),
    "no line end": lambda text: text.rstrip("\n").encode(),
}


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "home of ä"
    (folder / "data").mkdir(parents=True)
    monkeypatch.setenv("HOME", str(folder))
    monkeypatch.setenv("MY_DATA", str(folder / "data"))
    monkeypatch.delenv("NOT_SET", raising=False)
    monkeypatch.chdir(tmp_path)
    return folder


@pytest.mark.parametrize("text", ["~/data", "$MY_DATA", "${MY_DATA}", "$HOME/data", "~//data/", " ~/data\n"])
def test_paths_are_what_a_shell_takes_them_for(home: Path, text: str) -> None:
    assert as_path(text) == existing_file(text) == file_path(text) == home / "data"
    assert file_path(f"{text.rstrip()}/new") == home / "data/new"


def test_a_file_that_is_called_so_comes_first_and_the_unknown_stays(home: Path) -> None:
    Path("~").mkdir()
    assert as_path("~") == Path("~")
    assert as_path("$NOT_SET/x") == Path("$NOT_SET/x")
    assert as_path("~nobody_of_this_name/x") == Path("~nobody_of_this_name/x")


def test_all_paths_of_stages_are_read_so() -> None:
    """No option of a stage has pathlib's Path as its type."""
    for path in sorted([*(ROOT / "src").glob("*.py"), *(ROOT / "src/creditflow/stages").glob("*.py")]):
        for call in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            keywords = call.keywords if isinstance(call, ast.Call) else []
            types = [keyword.value for keyword in keywords if keyword.arg == "type"]
            assert not [kind for kind in types if isinstance(kind, ast.Name) and kind.id == "Path"], path


@pytest.mark.parametrize("saved", SAVED)
def test_yaml_is_read_however_it_was_saved(tmp_path: Path, saved: str) -> None:
    (tmp_path / "x.yaml").write_bytes(SAVED[saved]("rate: 1e-4\nname: 'Grüße'\nlist:\n  - a\n  - 1E3\n"))
    assert read_mapping(tmp_path / "x.yaml") == {"rate": 1e-4, "name": "Grüße", "list": ["a", 1000.0]}


#: What people write that is no YAML, or that looks like something else than it is; and what the message must say.
REFUSED = {
    "a tab": ("a:\n\tb: 1", "line 2, column 1: found character .*; a tab is here; indent with spaces"),
    "a path of Windows": ('a: "C:\\data"', r"line 1, .*unknown escape.*; write \\\\ for one backslash, or use single"),
    "an at sign": ("a: @x", "line 1, column 4: .*; put a text that begins with @ in quotes"),
    "two files": ("a: 1\n---\na: 2", "line 2, column 1: but found another document"),
    "UTF-16": ("a: 1".encode("utf-16"), "'utf-8' codec .*; save it as UTF-8"),
    "Latin-1": ("a: ä".encode("latin-1"), "'utf-8' codec .*; save it as UTF-8"),
    "a no-break space after a colon": (
        "a:\u00a05",
        "line 1, column 1: .* not seen \\(NO-BREAK SPACE\\); write an ordin",
    ),
    "a no-break space before a key": ("b:\n  \u00a0a: 5", "line 2, column 3: .* not seen \\(NO-BREAK SPACE\\)"),
    "a no-break space at the end": ("a: 5\u00a0", "line 1, column 4: .* not seen \\(NO-BREAK SPACE\\)"),
    "a space without width": ("a: \u200b5", "line 1, column 4: .* not seen \\(ZERO WIDTH SPACE\\)"),
    "a wide space": ("a: 5\u3000", "not seen \\(IDEOGRAPHIC SPACE\\)"),
    "a key twice in braces": ("a: {b: 1, b: 2}", "line 1, column 11: the key 'b' stands twice"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_yaml_that_is_refused_says_where_and_what_to_do(tmp_path: Path, case: str) -> None:
    text, message = REFUSED[case]
    (tmp_path / "x.yaml").write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(UserError, match=message) as caught:
        read_mapping(tmp_path / "x.yaml")
    assert "\n" not in str(caught.value) and "unicode string" not in str(caught.value)


def test_such_characters_within_a_text_are_the_texts(tmp_path: Path) -> None:
    (tmp_path / "x.yaml").write_text("a: 10\u00a0% of all\nb: '\u00a0'\n", encoding="utf-8")
    assert read_mapping(tmp_path / "x.yaml") == {"a": "10\u00a0% of all", "b": "\u00a0"}


@pytest.mark.parametrize(
    ("value", "number"),
    [("1e-4", "0.0001"), ("1,5", "1.5"), ("\u22125", "-5"), ("\uff11\uff12", "12"), (" 7 ", "7"), ("1_000", "1000")],
)
def test_a_number_that_is_written_as_a_text_is_named(value: str, number: str) -> None:
    class Settings(SettingsModel):
        rate: float

    with pytest.raises(UserError, match=rf"rate must be a number, not '.*'; write {number} without quotes$"):
        parse(Settings, {"rate": value}, "here")


@pytest.mark.parametrize("saved", SAVED)
def test_experiments_are_read_however_they_were_saved(tmp_path: Path, saved: str) -> None:
    text = (ROOT / "config/experiments/quick.yaml").read_text(encoding="utf-8")
    (tmp_path / "quick.yaml").write_bytes(SAVED[saved](text))
    assert load_experiment(tmp_path, "quick").keys == load_experiment(ROOT / "config/experiments", "quick").keys


@pytest.mark.parametrize("saved", SAVED)
@pytest.mark.parametrize("name", ["biotorch", "pepita"])
def test_published_numbers_are_read_however_they_were_saved(tmp_path: Path, saved: str, name: str) -> None:
    original = ROOT / f"config/published/{name}.csv"
    (tmp_path / f"{name}.csv").write_bytes(SAVED[saved](original.read_text(encoding="utf-8")))
    assert read_published(tmp_path / f"{name}.csv").equals(read_published(original))


@pytest.mark.parametrize("saved", SAVED)
def test_hyperparameters_are_read_however_they_were_saved(
    tmp_path: Path, saved: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = ROOT / "config/hyperparameters/target_propagation.csv"
    before = load_experiment(ROOT / "config/experiments", "target_propagation").keys
    (tmp_path / original.name).write_bytes(SAVED[saved](original.read_text(encoding="utf-8")))
    monkeypatch.setattr(published_hyperparameters, "FOLDER", tmp_path)
    assert load_experiment(ROOT / "config/experiments", "target_propagation").keys == before


def test_weights_of_ones_own_may_lie_at_home(home: Path, tmp_path: Path) -> None:
    for name in ("sign_symmetry", "quick"):
        text = (ROOT / f"config/experiments/{name}.yaml").read_text(encoding="utf-8")
        (tmp_path / f"{name}.yaml").write_text(text, encoding="utf-8")
    experiment = load_experiment(tmp_path, "sign_symmetry")
    backbone = next(iter(experiment.networks))
    experiment.keys["pretrain"]["files"] = {backbone: {"path": "~/data/mine.pth", "sha256": "0" * 8}}
    assert weights_file(experiment, Path("results"), backbone) == home / "data/mine.pth"


@pytest.fixture(scope="module")
def configured(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project whose first job writes down its command line."""
    folder = project(tmp_path_factory.mktemp("configured"), tiny=TINY)
    (folder / "Snakefile").write_text(
        (folder / "Snakefile").read_text(encoding="utf-8") + "\nprint('CONFIG', config)\n", encoding="utf-8"
    )
    return folder


CONFIG = "default_experiment: tiny\ndevice: cpu\ncontainer:\n  flavour: cpu\ndata:\n  search_paths:\n"
CONFIG += "    - ~/data\n    - $MY_DATA/more\n  max_unreadable: 1e-3\n"


@pytest.mark.parametrize(
    ("options", "max_unreadable"),
    [
        ([], 1e-3),
        (["--config", "data={max_unreadable: 2e-3}"], 2e-3),
        (["--configfile", "other.yaml"], 3e-3),
        (["--configfile", "other.yaml", "--config", "device=auto"], 3e-3),
    ],
)
def test_the_configuration_is_read_as_experiments_are(
    configured: Path, home: Path, options: list[str], max_unreadable: float
) -> None:
    (configured / "config/config.yaml").write_bytes(SAVED["both"](CONFIG))
    (configured / "other.yaml").write_bytes(SAVED["both"]("data:\n  max_unreadable: 3e-3\n"))
    done = snakemake(configured, "-n", *options)
    assert done.returncode == 0, done.stdout
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("CONFIG ")]
    config: dict[str, Any] = ast.literal_eval(line.removeprefix("CONFIG "))
    assert config["data"] == {
        "search_paths": [f"{home}/data", f"{home}/data/more"],
        "max_unreadable": max_unreadable,
    }
    assert config["default_experiment"] == "tiny"
    assert config["device"] == ("auto" if "device=auto" in options else "cpu")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("device: cpu\ndevice: auto\n", "config/config.yaml: line 2, column 1: the key 'device' stands twice"),
        ("device: [cpu\n", "config/config.yaml: not valid YAML ("),
        ("max: 010\n", "config/config.yaml: line 1, column 6: '010' is in base 8 in YAML 1.1"),
    ],
)
def test_a_broken_configuration_is_one_line(configured: Path, text: str, message: str) -> None:
    (configured / "config/config.yaml").write_text(text, encoding="utf-8")
    done = snakemake(configured, "-n")
    assert done.returncode == 2 and done.stdout.splitlines()[-1].startswith(f"error: {message}"), done.stdout
    assert "Traceback" not in done.stdout


def test_numbers_of_the_command_line() -> None:
    given = {"a": "1e-4", "b": ["2E5", "x"], "c": {"d": "-3.5e+1"}, "e": "1e", "f": 7, "g": "e4"}
    assert numbers_in(given) == {"a": 1e-4, "b": [2e5, "x"], "c": {"d": -35.0}, "e": "1e", "f": 7, "g": "e4"}


def test_no_text_is_read_or_written_in_the_systems_encoding() -> None:
    """Ruff (PLW1514) sees it only where it knows the type of a path."""
    roots = [ROOT / name for name in ("src", "benchmarks", "containers", "envs")]
    for path in sorted(path for root in roots for path in root.rglob("*.py")):
        for call in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            name = call.func.attr if isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute) else ""
            keywords = {keyword.arg for keyword in getattr(call, "keywords", ())}
            if name in ("read_text", "write_text"):
                assert "encoding" in keywords, f"{path}:{call.lineno}"
            if name in ("run", "Popen", "check_output"):
                assert "text" not in keywords or "encoding" in keywords, f"{path}:{call.lineno}"
