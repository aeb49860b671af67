"""Patterns: a square for each entry, in the colour of its pass."""

import matplotlib.pyplot as plt

from funcdiff.plots import numbers, plot_pattern


def test_a_square_for_each_entry_at_its_place():
    axes = plot_pattern([0, 0, 1], [0, 2, 1], [0, 1, 1], shape=(2, 3), title="Two passes give three entries")
    (squares,) = axes.collections
    centres = [path.vertices[:4].mean(0).round(6).tolist() for path in squares.get_paths()]
    assert centres == [[0, 0], [2, 0], [1, 1]]
    first, second, third = map(tuple, squares.get_facecolors())
    assert first != second == third
    assert [text.get_text() for text in axes.texts] == ["1", "2", "2"]
    assert axes.yaxis_inverted()
    assert numbers(axes.figure)[0].rows == (("1", "1"), ("2", "2"))
    plt.close(axes.figure)


def test_many_passes_have_colours_of_their_own_and_no_numbers():
    axes = plot_pattern(range(20), range(20), range(20), shape=(20, 20), title="A diagonal in twenty passes")
    (squares,) = axes.collections
    assert len(set(map(tuple, squares.get_facecolors()))) == 20
    assert not axes.texts
    plt.close(axes.figure)
