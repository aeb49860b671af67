"""A run of the atlas that was stopped goes on; an operator that ends the process is told, and the run not lost."""

import os
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import pytest

from _tools.atlas.journal import ENDS, Journal

KEYS = [("operator", name) for name in ("add", "dies", "mul", "sin")]
HEADING = {"torch": "2.13.0", "modes": ["jacobian"]}


def entry(key):
    return {"kind": key[0], "name": key[1], "samples": [0], "moving": [1], "operators": [[key[1]]]}


def judge(key):
    if key[1] == "dies":
        os._exit(1)
    return entry(key)


def untouchable(key):
    raise AssertionError(f"{key} was judged again")


def pool(processes):
    return ProcessPoolExecutor(processes, get_context("fork"))


def judged(journal, judge, keys=KEYS):
    return list(journal.each(judge, keys, pool, 2))


@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
def test_a_case_that_ends_the_process_is_told_and_the_others_are_judged(tmp_path):
    found = judged(Journal(tmp_path / "begun", HEADING), judge)
    assert [e["name"] for e in found] == [name for _, name in KEYS]
    assert [e.get("reason") for e in found] == [None, ENDS, None, None]


@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
def test_a_run_goes_on_where_it_was_stopped(tmp_path):
    path = tmp_path / "begun"
    first = judged(Journal(path, HEADING), judge, KEYS[2:])
    assert judged(Journal(path, HEADING), untouchable, KEYS[2:]) == first
    with pytest.raises(AssertionError, match="judged again"):
        judged(Journal(path, HEADING | {"modes": ["hessian"]}), untouchable, KEYS[2:])
    Journal(path, HEADING).close()
    assert not path.exists()
