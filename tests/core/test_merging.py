"""Values of YAML files as JSON in one line."""

import json

from hypothesis import given
from hypothesis import strategies as st

from creditflow.core.merging import compact_json

leaves = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
values = st.recursive(leaves, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=20)


@given(values)
def test_it_is_json_with_sorted_keys(value: object) -> None:
    assert compact_json(value) == json.dumps(value, sort_keys=True)


def test_numbers_may_stand_beside_text_as_keys() -> None:
    assert compact_json({"all": {10: "c", 2.5: "b", "Table 3": "d", 1: "a"}}) == (
        '{"all": {"1": "a", "2.5": "b", "10": "c", "Table 3": "d"}}'
    )
