"""Fixtures for the tests of datasets."""

from pathlib import Path

import pytest

from preparing import Stages


@pytest.fixture
def stages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Stages:
    return Stages(tmp_path, monkeypatch)
