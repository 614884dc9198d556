"""Types of values that the settings of several tables and figures share."""

import json
from typing import Annotated, Any

from pydantic import BeforeValidator, Field


def _as_json_writes_it(key: Any) -> Any:
    return json.dumps(key) if isinstance(key, int | float) else key


#: The id of a dataset, backbone, variant, rule, attack or metric, or the name of a file without its suffix.
Name = Annotated[str, Field(min_length=1)]

#: What a line, row or column is called; YAML reads some labels as numbers, such as 0.1.
Label = Annotated[str, BeforeValidator(_as_json_writes_it)]

#: Variants of an experiment's population by their labels, in the order in which they are shown.
Variants = dict[Label, Name]

#: The number of a hidden layer; the first one is 1.
Layer = Annotated[int, Field(ge=1, le=10_000)]
