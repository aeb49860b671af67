import runpy
from pathlib import Path

import pytest

BAD_INPUT = runpy.run_path(str(Path(__file__).parents[1] / "docs/_ext/bad_input.py"))


@pytest.mark.parametrize("case", BAD_INPUT["CASES"], ids=lambda case: case.name)
def test_bad_input_is_refused_and_left_as_it_was(case):
    before = BAD_INPUT["X"].clone(), BAD_INPUT["ROWS"].clone()
    with pytest.raises(case.error, match=case.text) as refusal:
        case.provoke()
    assert refusal.type is case.error
    assert BAD_INPUT["X"].equal(before[0])
    assert BAD_INPUT["ROWS"].equal(before[1])
