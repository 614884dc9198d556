"""Settings of training: values out of range and unknown keys."""

import pytest

from creditflow.core.errors import UserError
from creditflow.core.settings import parse
from creditflow.training.settings import TrainingSettings


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"epochs": 0}, "epochs must be at least 1, not 0"),
        ({"batch_size": 0}, "batch_size must be at least 1, not 0"),
        ({"learning_rate": -1.0}, "learning_rate must be above 0, not -1.0"),
        ({"learning_rate": float("nan")}, "learning_rate must be a finite number, not nan"),
        ({"learning_rate": "1e-3"}, "learning_rate must be a number, not '1e-3'; write 0.001 without quotes"),
        ({"head_learning_rate": 0}, "head_learning_rate must be above 0, not 0"),
        ({"head_learning_rate": float("inf")}, "head_learning_rate must be a finite number, not inf"),
        ({"beta1": -0.1}, "beta1 must be at least 0, not -0.1"),
        ({"beta2": 1.0}, "beta2 must be below 1, not 1.0"),
        ({"weight_decay": -1.0}, "weight_decay must be at least 0, not -1.0"),
        (
            {"precision": "float16"},
            "precision must be 'float32' or 'bfloat16', not 'float16'; did you mean 'bfloat16'?",
        ),
        ({"pad": -1}, "pad must be at least 0, not -1"),
        ({"angle_images": -1}, "angle_images must be at least 0, not -1"),
        ({"epoch": 3}, "unknown key 'epoch'; did you mean 'epochs'?"),
    ],
)
def test_impossible_hyper_parameters_are_refused(wrong: dict[str, object], message: str) -> None:
    good = {"epochs": 1, "batch_size": 1, "learning_rate": 0.1}
    parse(TrainingSettings, good, "here")
    with pytest.raises(UserError) as error:
        parse(TrainingSettings, good | wrong, "here")
    assert str(error.value) == f"here: {message}"
