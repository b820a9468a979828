"""What `config.img_size` is for those who read src/config.py as a module: 32 where the file says None."""

import types

from src import config
from src.settings import SETTINGS, chosen, derived


class ConfigModule(types.ModuleType):
    """src/config.py, in which a setting that is None and has the role "derived" has the value that it gets."""

    def __getattribute__(self, name):
        value = super().__getattribute__(name)
        if value is None and name in SETTINGS and "derived" in SETTINGS[name].roles:
            return derived(name, chosen({key: found for key, found in vars(self).items() if key in SETTINGS}))
        return value


config.__class__ = ConfigModule
