"""A table in a terminal fits a page: its remarks and its caption wrap."""

from funcdiff._tables import Table

REMARK = "used; agrees with differences of func, 0.0004 apart"
TABLE = Table(("recipe", "predicted", ""), (("a" * 50, "4.21 ms", REMARK), ("b", "27.5 ms", "")), "word " * 50)


def test_a_long_remark_and_a_caption_wrap():
    lines = repr(TABLE).split("\n")
    assert max(map(len, lines)) <= 100
    assert " ".join(line[63:].strip() for line in lines[2:4]) == REMARK
    assert lines[4].startswith("b ")


def test_a_table_of_numbers_ends_on_the_right():
    assert repr(Table(("a", "b"), (("x", "1"), ("y", "10")))) == "a   b\n-  --\nx   1\ny  10"


def test_a_word_that_is_too_long_for_its_column_is_broken_after_dots_and_underscores():
    wide = Table(("recipe", ""), (("a" * 90, "torch gets custom_function_call.default wrong at 0.0004"),))
    lines = [line[90:].strip() for line in repr(wide).split("\n")[2:]]
    assert lines == ["torch gets", "custom_", "function_call.", "default wrong", "at 0.0004"]
