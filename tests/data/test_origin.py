"""Raw files of another dataset with the same names are not taken for this one's."""

import hashlib
import json
from pathlib import Path

import pytest

from creditflow.core.errors import UserError
from creditflow.data.origin import check_origin

CHECKSUMS = {"train-images-idx3-ubyte.gz": "a" * 64}


def noted(folder: Path, origin: object) -> Path:
    (folder / "origin.json").write_text(json.dumps(origin), encoding="utf-8")
    return folder


def test_the_note_of_fetch_must_be_of_the_same_files(tmp_path: Path) -> None:
    check_origin(tmp_path, "mnist", CHECKSUMS)  # the user's own folder, without a note
    check_origin(noted(tmp_path, {"source": "x", "checksums": CHECKSUMS}), "mnist", CHECKSUMS)
    check_origin(noted(tmp_path, {"folder": "/somewhere"}), "imagenet", {})


@pytest.mark.parametrize("kind", ["sha256", "md5"])
def test_the_files_themselves_must_be_those_of_the_note(tmp_path: Path, kind: str) -> None:
    content = b"images of another dataset, with the same name"
    prefix = "md5:" if kind == "md5" else ""
    checksums = {
        "images": prefix + hashlib.new(kind, content).hexdigest(),
        "removed.tar": f"md5:{'c' * 32}",  # an archive that fetch has unpacked
    }
    (tmp_path / "images").write_bytes(content)
    check_origin(noted(tmp_path, {"checksums": checksums}), "mnist", checksums)
    (tmp_path / "images").write_bytes(content[:-1])
    with pytest.raises(UserError, match=r"images is damaged or belongs to another dataset: .* not that of mnist; make"):
        check_origin(tmp_path, "mnist", checksums)


@pytest.mark.parametrize("origin", [{"checksums": {"train-images-idx3-ubyte.gz": "b" * 64}}, {}, [], "text"])
def test_the_files_of_another_dataset_are_refused_in_one_line(origin: object, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"does not hold the files of mnist, but those of .*; make it again") as caught:
        check_origin(noted(tmp_path, origin), "mnist", CHECKSUMS)
    assert "\n" not in str(caught.value)
