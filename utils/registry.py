"""Names for parts: YAML says `name: neus`, a registry says which class that is.

A registered class carries a dataclass named `Config`; the parser in `utils.config` turns the YAML beneath
the name into it, and `registry.make(config, ...)` builds the class that the config belongs to. Registering
is one decorator in the file of the class; nothing lists the parts, because a registry imports every module
of its package at the first look-up.
"""

import difflib
import importlib
import pkgutil
from collections.abc import Callable
from typing import Any, TypeVar

T = TypeVar("T")


class ConfigError(ValueError):
    """A mistake in the configuration, told in one line: key, value, what was expected, remedy."""


def nearest(word: str, known: list[str]) -> str:
    """A hint such as " (did you mean 'neus'?)", or nothing where no known word is close."""
    close = difflib.get_close_matches(word, known, n=1, cutoff=0.5)
    return f" (did you mean '{close[0]}'?)" if close else ""


class Registry:
    """Parts of one kind by name.

    Args:
        kind: what an error calls such a part, e.g. "model".
        package: dotted package whose modules register the parts.
        key: the YAML key that holds the name, `name` or, as tiny-cuda-nn has it, `otype`.
    """

    def __init__(self, kind: str, package: str, key: str = "name"):
        self.kind, self.package, self.key = kind, package, key
        self._parts: dict[str, Any] = {}
        self._is_loaded = False

    def register(self, *names: str) -> Callable[[T], T]:
        """Decorator that files a class or function under `names`."""

        def file(part: T) -> T:
            for name in names:
                taken = self._parts.get(name)
                if taken is not None and (taken.__module__, taken.__qualname__) != (part.__module__, part.__qualname__):  # type: ignore[attr-defined]
                    raise ConfigError(
                        f"{self.kind} '{name}' is registered twice: {taken.__module__}.{taken.__qualname__} "
                        f"and {part.__module__}.{part.__qualname__}; rename one"  # type: ignore[attr-defined]
                    )
                self._parts[name] = part
            return part

        return file

    def names(self) -> list[str]:
        self._load()
        return sorted(self._parts)

    def get(self, name: str, where: str = "") -> Any:
        """The part called `name`; `where` is the full key for the error.

        Raises:
            ConfigError: nobody registered that name.
        """
        self._load()
        if name not in self._parts:
            place, known = f"{where}: " if where else "", self.names()
            hint = nearest(str(name), known)
            raise ConfigError(f"{place}unknown {self.kind} '{name}'{hint}; known: {', '.join(known)}")
        return self._parts[name]

    def make(self, config: Any, *parts: Any, **options: Any) -> Any:
        """Builds the class whose `Config` the given config is."""
        self._load()
        for part in self._parts.values():
            if getattr(part, "Config", None) is type(config):
                return part(config, *parts, **options)
        raise ConfigError(f"no registered {self.kind} takes a {type(config).__qualname__}")

    def _load(self) -> None:
        if self._is_loaded:
            return
        self._is_loaded = True
        package = importlib.import_module(self.package)
        for module in pkgutil.walk_packages(package.__path__, self.package + "."):
            importlib.import_module(module.name)
