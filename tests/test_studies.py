from pathlib import Path

import pytest

from _ext.shown import studies

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize(("study", "what", "tutorial", "text"), studies.ROWS)
def test_every_row_of_the_studies_is_told_where_the_map_says(study, what, tutorial, text):
    assert study in "ABCD"
    assert what
    assert studies.line_of(tutorial, text) > 0


def test_a_row_that_is_not_told_is_an_error():
    with pytest.raises(ValueError, match="no line of gallery"):
        studies.line_of("jacobians/six_ways", "no such line")
