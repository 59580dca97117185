from hypothesis import given
from hypothesis import strategies as st
from latex2mathml.converter import convert
from page_check import complaints

from mathlete.report.markup import Html, clean, escape, join, shorten, shorten_middle, tag


def test_text_is_escaped_and_markup_is_not() -> None:
    assert tag("p", "a < b & c", tag("b", '"x"')) == "<p>a &lt; b &amp; c<b>&quot;x&quot;</b></p>"


def test_adding_markup_gives_text_again_so_that_a_slip_escapes_twice() -> None:
    slipped = tag("b", "x") + "<script>"
    assert not isinstance(slipped, Html)
    assert escape(slipped) == "&lt;b&gt;x&lt;/b&gt;&lt;script&gt;"


def test_attributes() -> None:
    assert tag("a", "x", class_="y", aria_label='"', hidden=True, open=False, id=None, tabindex=0) == (
        '<a class="y" aria-label="&quot;" hidden tabindex="0">x</a>'
    )
    assert tag("meta", name="viewport") == '<meta name="viewport">'


def test_what_cannot_be_printed_becomes_visible() -> None:
    assert clean("a\x00b\x1b[31m\u202ec\ud800") == "a\ufffdb\ufffd[31m\ufffdc\ufffd"
    assert clean("a\r\nb\rc\td\n") == "a\nb\nc\td\n"


@given(st.text(st.characters()))
def test_any_text_can_be_encoded_and_has_no_markup(text: str) -> None:
    written = join([text])
    assert written.encode().decode() == written
    assert not set("<>\"'") & set(written)


def test_shorten_cuts_between_words() -> None:
    assert shorten("one two three", 20) == "one two three"
    assert shorten("one two three", 10) == "one two…"
    assert shorten("x" * 50, 10) == "x" * 9 + "…"


def test_shorten_middle_says_how_much_is_missing() -> None:
    cut = shorten_middle("a" * 50 + "b" * 1_000 + "c" * 50, 100)
    assert cut.startswith("a" * 50 + "\n") and cut.endswith("\n" + "c" * 50) and "1,000 characters" in cut
    assert shorten_middle("short", 100) == "short"


def test_the_check_of_pages_sees_what_it_should() -> None:
    for bad in (
        "<img src=x onerror=1>",
        "<a href='javascript:x'>",
        "<p style='color:red'>",
        "<script src=x>",
        "<iframe>",
    ):
        assert complaints(bad), bad
    assert complaints(convert("\\text{<img src=x onerror=alert(1)>}"))  # why the converter's own output is not used
