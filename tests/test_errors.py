from typing import Literal

import pytest

from siamese_keras.errors import (
    ArgumentError,
    DataError,
    ModelError,
    NotPreparedError,
    RequestError,
    SiameseKerasError,
    TrainingError,
    check_choice,
    plain_reason,
)


@pytest.mark.parametrize("error", [ArgumentError, DataError, TrainingError, ModelError])
def test_one_except_clause_catches_every_error_and_so_does_value_error(error):
    with pytest.raises(SiameseKerasError):
        raise error("message")
    assert issubclass(error, ValueError)


def test_special_cases_are_caught_by_the_general_name():
    assert issubclass(NotPreparedError, DataError)
    assert issubclass(RequestError, ModelError)


def test_a_choice_that_is_not_offered_is_refused_with_those_that_are():
    check_choice("color", "red", Literal["red", "green"])
    for value in ("blue", "", None, 3, ["red"]):
        with pytest.raises(ArgumentError) as refused:
            check_choice("color", value, Literal["red", "green"])
        assert str(refused.value) == (
            f"`color` must be one of 'red', 'green'. Received: color={value!r}"
        )


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        ("An image must be a PNG or JPEG file.", "An image must be a PNG or JPEG file."),
        (
            "assertion failed: [An image must be a PNG or JPEG file.]\n"
            "\t [[{{node map/while/body/Assert}}]] [Op:__inference_signature_wrapper_12]",
            "An image must be a PNG or JPEG file.",
        ),
        (
            "{{function_node __wrapped__DecodePng}} Invalid PNG data, size 57 [Op:DecodePng]",
            "Invalid PNG data, size 57",
        ),
        (
            "Graph execution error:\n\nDetected at node Reshape defined at (most recent call "
            'last):\n  File "a.py", line 3, in <module>\n<stack traces unavailable>\n'
            "Input has 3 values, expected 4\n\t [[{{node Reshape}}]]",
            "Input has 3 values, expected 4",
        ),
        (
            "assertion failed: [Received: height and width] [20000 20000]",
            "Received: height and width [20000 20000]",
        ),
        ("", ""),
        ("  only indented", "  only indented"),
    ],
)
def test_the_reason_of_a_tensorflow_message_is_one_line_without_its_noise(message, reason):
    assert plain_reason(message) == reason
