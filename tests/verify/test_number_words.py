import pytest

from mathlete.verify.number_words import cardinal


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("zero", 0),
        ("Seven", 7),
        ("forty-two", 42),
        ("forty two", 42),
        ("one hundred", 100),
        ("one hundred and five", 105),
        ("three hundred sixty-five", 365),
        ("two thousand and six", 2006),
        ("twelve thousand three hundred forty-five", 12345),
        ("one million two hundred thousand", 1_200_000),
        ("minus five", -5),
    ],
)
def test_cardinals(text: str, value: int) -> None:
    assert cardinal(text) == value


@pytest.mark.parametrize(
    "text",
    ["", "-", "hundred", "thousand", "two two", "forty forty", "twenty eleven", "one thousand million", "fifth", "half"]
    + ["one hundred and", "and five", "a", "two apples", "one thousand zero", "ten hundred", "minus", "one " * 50],
)
def test_anything_else_is_no_number(text: str) -> None:
    assert cardinal(text) is None
