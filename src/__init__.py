from src import settings  # noqa: F401, from now on src.config also has what follows from its values
