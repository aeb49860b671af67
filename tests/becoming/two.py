"""The two functions, and the list of makers: each returns a function, and what turns it from one into the other."""

import torch

X = torch.linspace(-1, 1.3, 6, dtype=torch.float64).reshape(3, 2)


def sine(x):
    return torch.sin(x)


def distance(x):  # its Jacobian by a batch of rows is wrong: the plan for the sine must not serve it
    return torch.cdist(x, x + 1)


def either(first):
    return sine if first else distance


BECOMES_ANOTHER = {}
# Those whose change no description would show, so that they are planned at each call.
UNDESCRIBED = {"large_array", "attribute_of_a_python_module_by_its_name", "global_by_its_name"}


def becomes_another(make):
    """Collect `make`, which returns a function and what turns it from the sine into the distance."""
    BECOMES_ANOTHER[make.__name__] = make
    return make
