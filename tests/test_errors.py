import pytest

from mis.errors import MisError


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (MisError("a rule"), "a rule"),
        (MisError("a rule", got=3), "a rule, got 3"),
        (MisError("a rule", do="act"), "a rule; act"),
        (MisError("a rule", got=3, do="act"), "a rule, got 3; act"),
        (MisError("a rule", got=0), "a rule, got 0"),
        (MisError("a rule", got=""), "a rule, got"),
    ],
)
def test_the_parts_are_joined_in_the_order_rule_value_action(error, text):
    assert str(error) == text


def test_the_message_is_one_line_whatever_is_quoted_in_it():
    error = MisError("a rule\nof two lines", got="a\tvalue\r\n with breaks", do="act\n")
    assert str(error) == "a rule of two lines, got a value with breaks; act"
