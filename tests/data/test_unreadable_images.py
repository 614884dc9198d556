"""Image files that cannot be read are left out, up to a share."""

import pytest

from creditflow.core.errors import UserError
from creditflow.data.prepared import load_prepared
from creditflow.data.settings import InputSettings
from formats import jpeg, noise, nus_wide, row, write
from preparing import Stages, check_colours, facts


def test_unreadable_images_are_left_out_up_to_a_share(stages: Stages, capsys: pytest.CaptureFixture[str]) -> None:
    broken = {0: noise(200)[:-4000], 3: noise(400)[:-9000], 5: b"", 6: b"<html>", 9: noise(64)[:30]}
    train = {f"images/{index}.jpg": row(index % 21, n=21) for index in range(50)}
    files = nus_wide(train) | {name: jpeg(index) for index, name in enumerate(train)}
    del files["images/12.jpg"]
    write(stages.here, files | {f"images/{index}.jpg": content for index, content in broken.items()})
    stages.fetch("nus_wide")
    message = (
        r"nus_wide: 6 of 50 train images cannot be read, more than a share of 0.1"
        r" \(images/0.jpg, images/3.jpg, images/5.jpg, ...\);"
    )
    with pytest.raises(UserError, match=message + ".*data.max_unreadable"):
        stages.prepare("nus_wide", "--max-unreadable", "0.1")
    assert not list(stages.folder.glob("*.safetensors"))
    capsys.readouterr()
    path = stages.prepare("nus_wide", "--max-unreadable", "0.12", "--threads", "3")
    lost = [0, 3, 5, 6, 9, 12]
    out = capsys.readouterr().out
    assert [line.split(":")[0] for line in out.splitlines()[:7]] == [
        "nus_wide",
        *(f"  left out images/{index}.jpg" for index in lost),
    ]
    assert out.splitlines()[0] == "nus_wide: 44 train images" and out.splitlines()[-1] == "nus_wide: 3 test images"
    assert facts(path)["unreadable"] == {"train": [f"images/{index}.jpg" for index in lost], "test": []}
    subset = load_prepared(path, "train", inputs=InputSettings(size=8))
    left = [index for index in range(50) if index not in lost]
    check_colours(subset, left)
    assert subset.labels.argmax(1).tolist() == [index % 21 for index in left]


def test_many_unreadable_images_are_counted(stages: Stages, capsys: pytest.CaptureFixture[str]) -> None:
    train = {f"images/{index}.jpg": row(0, n=21) for index in range(40)}
    write(
        stages.here,
        nus_wide(train)
        | {name: jpeg() if index % 2 else b"" for index, name in enumerate(train)}
        | {"images/1.jpg": b""},
    )
    stages.fetch("nus_wide")
    capsys.readouterr()
    with pytest.raises(UserError, match="21 of 40 train images"):
        stages.prepare("nus_wide", "--max-unreadable", "0.5")
    out = capsys.readouterr().out
    assert out.count("left out images/") == 20 and "left out 1 more" in out
    for text in ("-0.1", "1.5", "nan", "some"):
        with pytest.raises(SystemExit):
            stages.prepare("nus_wide", "--max-unreadable", text)
