"""Looks up known vulnerabilities of all locked packages with pip-audit: `make check-lock`.

It says how many packages were looked up, and names those that could not be. It fails unless all were looked up and none
has a known vulnerability. The packages that only some platforms install, such as torch's CUDA libraries, count as well.
"""

import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

ENVS = Path(__file__).resolve().parent


def main(pip_audit: str) -> int:
    """Asks pip-audit about every pin, prints what it found, and returns the exit code: 0 if all is well, else 1.

    The workflow's environment and that of the checkers are asked about one after the other, as each has its versions.
    """
    codes = [audit(pip_audit, paths) for paths in (sorted(ENVS.glob("requirements*.txt")), [ENVS / "check.txt"])]
    return max(codes)


def audit(pip_audit: str, paths: list[Path]) -> int:
    """Asks about the pins of one environment, prints what was found, and returns the exit code."""
    try:
        pins = locked_pins(paths)
    except (OSError, ValueError) as error:
        print(f"error: nothing was looked up: {error}", file=sys.stderr)
        return 1
    try:
        answer = look_up(pip_audit, pins)
    except (OSError, ValueError) as error:
        print(f"error: none of {len(pins)} locked packages was looked up: {error}", file=sys.stderr)
        return 1
    lines, code = judgement(pins, answer)
    print("\n".join(lines), file=sys.stderr if code else sys.stdout)
    return code


#: A pin as envs/lock.py writes it, and its hashes; whatever else stands in a lock could not be looked up.
_PIN = re.compile(r"([A-Za-z0-9][\w.-]*)==([A-Za-z0-9][\w.]*)( ; [^\\]+)? \\")
_HASH = re.compile(r" +--hash=sha256:[0-9a-f]{64}( \\)?")


def locked_pins(paths: Iterable[Path]) -> dict[str, str]:
    """Returns {name: version} of all pins in these files, whatever platform they are for.

    Raises ValueError for a line that is no pin with its hashes, for a package that has two versions, and if there is no
    pin at all: nothing may be left out in silence.
    """
    pins: dict[str, str] = {}
    names = []
    for path in paths:
        names.append(path.name)
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            pin = _PIN.fullmatch(line)
            if pin and pins.setdefault(normal(pin[1]), pin[2]) != pin[2]:
                raise ValueError(f"{path.name}, line {number}: {pin[1]} has a second version; run `make lock`")
            if not (pin or _HASH.fullmatch(line) or not line.strip() or line.startswith("#")):
                raise ValueError(
                    f"{path.name}, line {number} is no pin with its hashes: {line[:80]!r}; run `make lock`"
                )
    if not pins:
        raise ValueError(f"there is no pin in {', '.join(names) or 'requirements*.txt'}; run `make lock`")
    return pins


#: Seconds that all look-ups may take.
_PATIENCE_S = 900


def look_up(pip_audit: str, pins: Mapping[str, str]) -> Mapping[str, Any]:
    """Returns what pip-audit answers about these pins, as an object of JSON.

    Raises OSError if pip-audit cannot be run, and ValueError with its last line if it ends without an answer.
    """
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch, "requirements.txt")
        path.write_text("".join(f"{name}=={version}\n" for name, version in pins.items()), encoding="utf-8")
        command = [pip_audit, "--no-deps", "--disable-pip", "--format=json", "--progress-spinner=off"]
        command += ["--requirement", str(path)]
        try:
            done = subprocess.run(command, capture_output=True, encoding="utf-8", check=False, timeout=_PATIENCE_S)
        except subprocess.TimeoutExpired:
            raise ValueError(f"pip-audit was not done after {_PATIENCE_S} s") from None
    try:
        answer = json.loads(done.stdout)
    except ValueError:
        said = done.stderr.strip().splitlines() or [f"pip-audit ended with exit code {done.returncode}"]
        raise ValueError(said[-1]) from None
    if not isinstance(answer, dict) or not isinstance(answer.get("dependencies"), list):
        raise ValueError("pip-audit's answer has no list of dependencies")
    return answer


def judgement(pins: Mapping[str, str], answer: Mapping[str, Any]) -> tuple[list[str], int]:
    """Returns the lines that say what was looked up, and the exit code.

    A package that the answer does not mention, or mentions with another version or without a list of vulnerabilities,
    was not looked up.
    """
    entries = {normal(entry.get("name", "")): entry for entry in answer["dependencies"]}
    missing: dict[str, list[str]] = {}
    lines, n_vulnerable = [], 0
    for name, version in pins.items():
        entry = entries.get(normal(name), {})
        if reason := why_not(name, version, entry):
            missing.setdefault(reason, []).append(name)
        elif entry["vulns"]:
            n_vulnerable += 1
            lines.append(f"{name} {version} is vulnerable: {', '.join(map(identity, entry['vulns']))}")
    n_missing = sum(map(len, missing.values()))
    lines += [f"not looked up ({reason}): {', '.join(names)}" for reason, names in missing.items()]
    summary = f"{len(pins) - n_missing} of {len(pins)} locked packages were looked up"
    if not lines:
        return [f"{summary}; none has a known vulnerability"], 0
    faults = [f"{n_missing} of {len(pins)} locked packages could not be looked up"] if n_missing else []
    verb = "has a known vulnerability" if n_vulnerable == 1 else "have known vulnerabilities"
    faults += [f"{n_vulnerable} of {len(pins)} {verb}"] if n_vulnerable else []
    return [summary, *lines, f"error: {' and '.join(faults)}"], 1


def why_not(name: str, version: str, entry: Mapping[str, Any]) -> str:
    """Returns why a package of this version was not looked up; an empty text if it was.

    `entry` is what pip-audit says of the package; it is empty if pip-audit does not mention it.
    """
    if not entry:
        return "pip-audit does not mention it"
    if "skip_reason" in entry:
        return str(entry["skip_reason"]).removesuffix(f": {name} ({version})")
    if entry.get("version") != version:
        return f"pip-audit looked up version {entry.get('version')}"
    return "" if isinstance(entry.get("vulns"), list) else "pip-audit says nothing of vulnerabilities"


def identity(vulnerability: Mapping[str, Any]) -> str:
    """Returns the name of a vulnerability, and the versions without it."""
    fixed = vulnerability.get("fix_versions") or []
    return str(vulnerability.get("id")) + (f" (not in {', '.join(fixed)})" if fixed else "")


def normal(name: str) -> str:
    """Returns a package's name as all spellings of it are written."""
    return re.sub(r"[-_.]+", "-", name).lower()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
