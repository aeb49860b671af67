"""Functions that become another since what they hold changes: tensors, containers, objects, classes, functions."""

import dataclasses
import enum
import functools
import types
import weakref
from collections import deque

import numpy as np
import torch

from becoming.two import becomes_another, distance, either, sine


class Mode(enum.Enum):
    SINE = "sine"
    DISTANCE = "distance"


@dataclasses.dataclass(eq=False)
class Options:
    first: bool = True


@dataclasses.dataclass(eq=False, slots=True, weakref_slot=True)
class Slotted:
    first: bool = True


class Holder(types.SimpleNamespace):
    __hash__ = object.__hash__


class Thing:
    shared = True

    def __init__(self):
        self.first = True

    def method(self, x):
        return either(self.first)(x)

    def __call__(self, x):
        return either(self.first)(x)

    def by_class(self, x):
        return either(self.shared)(x)

    @property
    def chosen(self):
        return either(self.first)


@becomes_another
def value_of_a_tensor():
    gate = torch.ones(())
    return lambda x: either(gate > 0)(x), gate.neg_


@becomes_another
def value_in_a_list():
    gate = torch.ones(1)
    return lambda x: either(gate.tolist()[0] > 0)(x), gate.neg_


@becomes_another
def value_in_an_array():
    gate = torch.ones(1)
    return lambda x: either(gate.numpy()[0] > 0)(x), gate.neg_


@becomes_another
def value_as_an_array():
    gate = torch.ones(1)
    return lambda x: either(np.asarray(gate)[0] > 0)(x), gate.neg_


@becomes_another
def shape_by_a_mask():
    gate = torch.ones(1)
    return lambda x: either(len(gate[gate > 0]))(x), gate.neg_


@becomes_another
def shape_by_nonzero():
    gate = torch.ones(1)
    return lambda x: either(len(gate.nonzero()))(x), gate.zero_


@becomes_another
def equality_of_tensors():
    gate = torch.ones(1)
    return lambda x: either(torch.equal(gate, torch.ones(1)))(x), gate.neg_


@becomes_another
def list_of_strings():
    names = ["sine"]
    return lambda x: either("distance" not in names)(x), lambda: names.append("distance")


@becomes_another
def list_of_numbers():
    numbers = [1]
    return lambda x: either(sum(numbers) == 1)(x), lambda: numbers.append(1)


@becomes_another
def item_of_a_list():
    names = ["sine"]
    return lambda x: either(names[0] == "sine")(x), lambda: names.__setitem__(0, "distance")


@becomes_another
def set_of_strings():
    names = {"sine"}
    return lambda x: either("sine" in names)(x), names.clear


@becomes_another
def queue_of_numbers():
    numbers = deque([1, 0])
    return lambda x: either(numbers[0])(x), numbers.rotate


@becomes_another
def small_array():
    numbers = np.ones(2)
    return lambda x: either(numbers[0])(x), lambda: numbers.fill(0)


@becomes_another
def large_array():
    numbers = np.ones(100_000)
    return lambda x: either(numbers[-1])(x), lambda: numbers.fill(0)


@becomes_another
def options_in_an_object():
    holder = Holder(options={"first": True})
    return lambda x: either(holder.options["first"])(x), lambda: holder.options.update(first=False)


@becomes_another
def attribute_of_an_object():
    thing = Thing()
    return lambda x: either(thing.first)(x), lambda: setattr(thing, "first", False)


@becomes_another
def property_of_an_object():
    thing = Thing()
    return lambda x: thing.chosen(x), lambda: setattr(thing, "first", False)


@becomes_another
def object_in_objects():
    inner = Thing()
    outer = Holder(parts=[(Holder(inner={"it": [inner]}),)])
    return lambda x: either(outer.parts[0][0].inner["it"][0].first)(x), lambda: setattr(inner, "first", False)


@becomes_another
def object_that_holds_itself():
    thing = Thing()
    thing.self = thing
    return lambda x: either(thing.self.self.first)(x), lambda: setattr(thing, "first", False)


@becomes_another
def weakly_held_object():
    thing = Thing()
    reference = weakref.ref(thing)
    return lambda x: either(reference().first)(x), lambda: setattr(thing, "first", False)


@becomes_another
def field_of_a_dataclass():
    options = Options()
    return lambda x: either(options.first)(x), lambda: setattr(options, "first", False)


@becomes_another
def slot_of_an_object():
    options = Slotted()
    return lambda x: either(options.first)(x), lambda: setattr(options, "first", False)


@becomes_another
def enum_in_an_object():
    holder = Holder(mode=Mode.SINE)
    return lambda x: either(holder.mode is Mode.SINE)(x), lambda: setattr(holder, "mode", Mode.DISTANCE)


@becomes_another
def attribute_of_an_enum():
    class Kind(enum.Enum):
        ONE = 1

    Kind.ONE.first = True
    return lambda x: either(Kind.ONE.first)(x), lambda: setattr(Kind.ONE, "first", False)


@becomes_another
def power_in_an_object():
    holder = Holder(power=2)
    return lambda x: either(holder.power == 2)(x), lambda: setattr(holder, "power", 3)


@becomes_another
def method():
    thing = Thing()
    return thing.method, lambda: setattr(thing, "first", False)


@becomes_another
def callable_object():
    thing = Thing()
    return thing, lambda: setattr(thing, "first", False)


@becomes_another
def attribute_of_a_class():
    class Own(Thing):
        pass

    return lambda x: either(Own.shared)(x), lambda: setattr(Own, "shared", False)


@becomes_another
def attribute_of_an_objects_class():
    class Own(Thing):
        pass

    return Own().by_class, lambda: setattr(Own, "shared", False)


@becomes_another
def method_of_a_class():
    class Own:
        def compute(self, x):
            return sine(x)

    own = Own()
    return lambda x: own.compute(x), lambda: setattr(Own, "compute", lambda self, x: distance(x))


@becomes_another
def default_argument():
    thing = Thing()
    return lambda x, thing=thing: either(thing.first)(x), lambda: setattr(thing, "first", False)


@becomes_another
def keywords_of_a_partial():
    thing = Thing()
    func = functools.partial(lambda x, thing: either(thing.first)(x), thing=thing)
    return func, lambda: setattr(thing, "first", False)


@becomes_another
def attribute_of_a_function():
    def func(x):
        return either(func.first)(x)

    func.first = True
    return func, lambda: setattr(func, "first", False)


@becomes_another
def nested_functions():
    def inner(x):
        return middle(x)

    def middle(x):
        return either(first)(x)

    def change():
        nonlocal first
        first = False

    first = True
    return lambda x: (lambda y: inner(y))(x), change


@becomes_another
def list_of_callables():
    calls = [[lambda x: x.cos(), [sine]]]
    return lambda x: calls[0][1][0](x), lambda: calls[0][1].__setitem__(0, distance)
