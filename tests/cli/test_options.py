import pytest

from mathlete.cli.options import parse_bytes, parse_duration
from mathlete.core.errors import InputError


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90", 90),
        ("90s", 90),
        ("0.5", 0.5),
        ("10m", 600),
        ("10min", 600),
        ("1h30m", 5400),
        ("1.5h", 5400),
        ("1h 5s", 3605),
        (" 2H ", 7200),
        ("1m30s", 90),
    ],
)
def test_the_spellings_of_a_duration(text: str, seconds: float) -> None:
    assert parse_duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize(
    "text", ["", "ten", "10x", "-5", "-10m", "1h30", "30m1h", "1e3", "inf", "nan", "5 5", "m", "٣m", "1..5h", "9" * 99]
)
def test_other_spellings_are_refused_with_the_ones_that_work(text: str) -> None:
    with pytest.raises(InputError, match="write it like 90, 90s, 10m, 1h30m or 1.5h"):
        parse_duration(text)


@pytest.mark.parametrize("text", ["0", "0s", "0h0m", "9000h"])
def test_no_time_and_endless_time_are_refused(text: str) -> None:
    with pytest.raises(InputError, match="longer than 0 and at most a year"):
        parse_duration(text)


@pytest.mark.parametrize(
    ("text", "num_bytes"),
    [("512m", 512 << 20), ("2g", 2 << 30), ("1.5G", 3 << 29), ("2GiB", 2 << 30), ("64 kb", 65536), ("4096", 4096)],
)
def test_the_spellings_of_a_size(text: str, num_bytes: int) -> None:
    assert parse_bytes(text) == num_bytes


@pytest.mark.parametrize("text", ["", "g", "-1g", "1e9", "inf", "2gg", "1 2m", "2x", "0", "0.0001k", "2000t"])
def test_other_sizes_are_refused(text: str) -> None:
    with pytest.raises(InputError, match="size"):
        parse_bytes(text)
