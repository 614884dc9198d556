"""Datasets that are published as archives: fetched, prepared, damaged; and members that point elsewhere."""

import json
import stat
import zipfile
from pathlib import Path

import pytest

from creditflow.core.errors import UserError
from creditflow.data.formats.archives import read_members, unpack
from formats import cifar10, cifar100, link, md5, mnist, pathmnist, stl10, svhn, tar, zipped
from preparing import Stages, check_arrays

ARCHIVES = {
    "mnist": mnist,
    "cifar10": cifar10,
    "cifar100": cifar100,
    "svhn": svhn,
    "stl10": stl10,
    "pathmnist": pathmnist,
}


@pytest.mark.parametrize("name", ARCHIVES)
def test_archives_are_fetched_and_prepared(name: str, stages: Stages) -> None:
    files, expected = ARCHIVES[name]()
    raw = stages.fetch(name, files)
    assert {path.name: path.read_bytes() for path in raw.iterdir() if path.name != "origin.json"} == files
    origin = json.loads((raw / "origin.json").read_text(encoding="utf-8"))
    assert origin == {
        "source": f"folder {stages.here}",
        "checksums": {file: md5(content) for file, content in files.items()},
    }
    check_arrays(stages.prepare(name), expected)


@pytest.mark.parametrize("name", ARCHIVES)
@pytest.mark.parametrize("damage", ["truncated", "changed", "another"])
def test_a_damaged_archive_ends_in_one_line(name: str, damage: str, stages: Stages) -> None:
    files = ARCHIVES[name]()[0]
    victim, content = list(files.items())[-1]
    middle = len(content) // 2
    spoilt = {
        "truncated": content[:middle],
        "changed": content[:middle] + b"X" + content[middle + 1 :],
        "another": b"<html>" * 99,
    }[damage]
    assert spoilt != content
    stages.fetch(name, files)
    (stages.here / victim).write_bytes(spoilt)
    with pytest.raises(
        UserError, match=rf"{name}: .*{victim} is truncated or corrupt .*MD5.*; replace it or move it away"
    ):
        stages.fetch(name)
    assert sorted(path.name for path in (stages.folder / "raw").iterdir()) == sorted([*files, "origin.json"]), (
        "the former stays"
    )

    # The readers take care of themselves, too: MD5 finds damage, but no malice.
    if damage != "changed":
        stages.fetch(name, files | {victim: spoilt})
        with pytest.raises(UserError, match=victim) as caught:
            stages.prepare(name)
        assert "\n" not in str(caught.value)
    assert not list(stages.folder.glob("*.safetensors"))


def test_members_that_point_elsewhere_are_not_followed(tmp_path: Path) -> None:
    deep = tmp_path / "a/b/c"
    deep.mkdir(parents=True)
    (tmp_path / "secret").write_bytes(b"secret")
    archive = deep / "some.tar.gz"
    archive.write_bytes(
        tar({"../evil": b"x", "/tmp/creditflow-evil": b"x", "good": b"y"}, link("bad", str(tmp_path / "secret")))
    )
    before = sorted(tmp_path.rglob("*"))
    assert read_members(archive, ["good", "../evil"]) == {"good": b"y", "../evil": b"x"}
    with pytest.raises(UserError, match="bad is not a plain file"):
        read_members(archive, ["good", "bad"])

    symlink = zipfile.ZipInfo("train/link")
    symlink.external_attr = (stat.S_IFLNK | 0o777) << 16
    for content in (
        zipped({"../evil": b"x"}),
        zipped({"train/../../evil": b"x"}),
        zipped({"/evil": b"x"}),
        zipped({}, symlink),
    ):
        archive.write_bytes(content)
        with pytest.raises(UserError, match="points out of its folder"):
            unpack(archive, deep, ["train", "..", "/evil"])
    archive.write_bytes(zipped({"train/a": b"1", "trainer/b": b"2", "other.json": b"3", "only.json": b"4"}))
    unpack(archive, deep, ["train", "only.json"])
    assert sorted(path for path in tmp_path.rglob("*") if path not in before) == [
        deep / "only.json",
        deep / "train",
        deep / "train/a",
    ]
    assert not Path("/tmp/creditflow-evil").exists()
