"""Values that a function may hold, drawn at random, and changes of them."""

import functools
import types

from becoming.two import sine
from hypothesis import strategies as st

SCALARS = st.none() | st.booleans() | st.integers(-3, 3) | st.floats(allow_nan=False) | st.text(max_size=3)
HELD = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.lists(inner, max_size=4).map(tuple)
        | st.dictionaries(st.text(max_size=2), inner, max_size=4)
        | inner.map(lambda value: types.SimpleNamespace(value=value))
        | inner.map(lambda value: functools.partial(sine, value=value))
    ),
    max_leaves=12,
)


def changed(held, data):
    """The same with one part replaced."""
    if isinstance(held, (list, tuple)) and held and data.draw(st.booleans()):
        i = data.draw(st.integers(0, len(held) - 1))
        return type(held)([*held[:i], changed(held[i], data), *held[i + 1 :]])
    if isinstance(held, dict) and held and data.draw(st.booleans()):
        name = data.draw(st.sampled_from(list(held)))
        return {**held, name: changed(held[name], data)}
    if isinstance(held, types.SimpleNamespace) and data.draw(st.booleans()):
        return types.SimpleNamespace(value=changed(held.value, data))
    return data.draw(SCALARS)
