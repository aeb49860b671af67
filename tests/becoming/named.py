"""Functions that become another since what they name changes: globals, modules, context and environment variables."""

import os
import types
from contextvars import ContextVar

import torch.nn.functional as F

from becoming.two import becomes_another, distance, either, sine

HELPER = sine
SETTINGS = types.ModuleType("settings_of_a_user")
SETTINGS.mode = "sine"
VARIABLE = ContextVar("variable", default=True)


def through_helper(x):
    return HELPER(x)


def through_helper_of_helper(x):
    return through_helper(x)


@becomes_another
def global_of_a_helper():
    return through_helper_of_helper, lambda: globals().update(HELPER=distance)


@becomes_another
def attribute_of_a_python_module():
    return lambda x: either(SETTINGS.mode == "sine")(x), lambda: setattr(SETTINGS, "mode", "distance")


@becomes_another
def attribute_of_a_python_module_by_its_name():
    return lambda x: either(getattr(SETTINGS, "mode") == "sine")(x), lambda: setattr(SETTINGS, "mode", "distance")  # noqa: B009  # it is what the test is about


@becomes_another
def attribute_of_a_python_module_imported_within():
    def func(x):
        import settings_of_a_user

        return either(settings_of_a_user.mode == "sine")(x)

    return func, lambda: setattr(SETTINGS, "mode", "distance")


@becomes_another
def global_by_its_name():
    return lambda x: globals()["HELPER"](x), lambda: globals().update(HELPER=distance)


@becomes_another
def function_of_torch_replaced():
    return lambda x: F.celu(x), lambda: setattr(F, "celu", distance)


@becomes_another
def context_variable():
    return lambda x: either(VARIABLE.get())(x), lambda: VARIABLE.set(False)


@becomes_another
def environment_variable():
    return lambda x: either("FUNCDIFF_TEST" not in os.environ)(x), lambda: os.environ.update(FUNCDIFF_TEST="1")
