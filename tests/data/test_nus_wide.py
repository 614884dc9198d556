"""NUS-WIDE-21: lists, concepts, and the database of retrieval."""

import pytest

from creditflow.core.errors import UserError
from creditflow.data.prepared import load_prepared
from creditflow.data.settings import InputSettings
from formats import nus_wide, nus_wide_shows, row, write
from preparing import Stages, check_colours, facts


def test_nus_wide(stages: Stages) -> None:
    write(stages.here / "nus_wide", nus_wide())
    path = stages.fetch_and_prepare("nus_wide")
    for split, images in (("train", [0, 1, 2, 3]), ("test", [4, 5, 6])):
        subset = load_prepared(path, split, inputs=InputSettings(size=16, resize="crop"))
        check_colours(subset, images)
        assert [labels.nonzero().flatten().tolist() for labels in subset.labels] == [
            nus_wide_shows(image) for image in images
        ]
        assert subset.class_names[0] == "concept 1"
    write(stages.here / "nus_wide", {"concepts.txt": "\n".join(f"name {number}" for number in range(21))})
    assert facts(stages.prepare("nus_wide"))["class_names"][20] == "name 20"
    write(stages.here / "nus_wide", {"concepts.txt": "sky\nclouds\n"})
    with pytest.raises(UserError, match="has 2 different names, not 21"):
        stages.prepare("nus_wide")


def test_the_database_of_retrieval_is_a_third_list(stages: Stages) -> None:
    listed = {f"images/{index}_a_m.jpg": row(*nus_wide_shows(index), n=21) for index in (3, 1)}
    write(
        stages.here / "nus_wide",
        nus_wide() | {"database.txt": "".join(f"{name} {labels}\n" for name, labels in listed.items())},
    )
    subset = load_prepared(
        stages.fetch_and_prepare("nus_wide"), "database", inputs=InputSettings(size=16, resize="crop")
    )
    check_colours(subset, [3, 1])
    write(stages.here / "nus_wide", {"database.txt": f"images/4_b_m.jpg {row(1, n=21)}\n"})
    with pytest.raises(
        UserError, match=r"1 images are in database\.txt and in test\.txt, for example images/4_b_m\.jpg"
    ):
        stages.prepare("nus_wide")


@pytest.mark.parametrize(
    ("train", "message"),
    [
        ({"images/0_a_m.jpg": row(0, n=20)}, r"train.txt, line 1: not a path and 21 labels"),
        ({"images/0_a_m.jpg": row(0, n=20) + " 2"}, r"train.txt, line 1: not a path and 21 labels"),
        ({"images/0_a_m.jpg": row(0, n=20) + " nan"}, r"train.txt, line 1: not a path and 21 labels"),
        ({"images/0_a_m.jpg": row(0, n=21), "images/1_a_m.jpg": row(n=21)}, "split 'train': image 1 has no label"),
        ({"../0_a_m.jpg": row(0, n=21)}, r"line 1: the path points out of the dataset's folder"),
        ({"images/5_b_m.jpg": row(0, n=21)}, "1 images are in train.txt and in test.txt, for example images/5_b_m.jpg"),
        ({"\n": ""}, "train.txt is empty"),
    ],
)
def test_lists_that_are_wrong(train: dict[str, str], message: str, stages: Stages) -> None:
    write(stages.here, nus_wide(train))
    stages.fetch("nus_wide")
    with pytest.raises(UserError, match=message):
        stages.prepare("nus_wide")
