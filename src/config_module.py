"""Derived settings as attributes of src/config.py: config.img_size is 32 where the file says None."""

import types

from src import config
from src.settings import SETTINGS, chosen, derived


class ConfigModule(types.ModuleType):
    """src/config.py; a setting that is None and has the role "derived" reads as its derived value."""

    def __getattribute__(self, name):
        value = super().__getattribute__(name)
        if value is None and name in SETTINGS and "derived" in SETTINGS[name].roles:
            return derived(name, chosen({key: found for key, found in vars(self).items() if key in SETTINGS}))
        return value


config.__class__ = ConfigModule
