"""Attributes that an object reads from its parts."""

import operator


def delegate(part, names, advice):
    """A class decorator: makes attributes of an object's attribute `part` its own; assigning one raises AttributeError.

    Args:
        names: of the attributes, separated by spaces; "speed=rate" is the attribute rate of the part as speed.
        advice: what to do instead of assigning them.
    """

    def decorate(cls):
        for word in names.split():
            name, _, attribute = word.partition("=")
            setattr(cls, name, read_only(name, f"{part}.{attribute or name}", advice))
        return cls

    return decorate


def read_only(name, source, advice):
    def refuse(self, value):
        raise AttributeError(f"{type(self).__name__}.{name} cannot be assigned; {advice}")

    return property(operator.attrgetter(source), refuse, doc=f"{source}; read-only")
