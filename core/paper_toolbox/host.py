"""The pluggy host: imports and registers a plugin when one of its methods is asked for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pluggy

from . import catalog, hookspecs
from .catalog import Card
from .errors import PluginError, UnknownMethod
from .kinds import KINDS
from .method import Method


class Host:
    """Holds the plugins loaded so far."""

    def __init__(self) -> None:
        self.manager = pluggy.PluginManager(hookspecs.PROJECT)
        self.manager.add_hookspecs(hookspecs)

    def find(self, name: str, kind: str | None = None) -> Card:
        """The card of ``name`` or ``kind:name``, nothing imported."""
        return catalog.find(name, kind)

    def method(self, name: str, kind: str | None = None) -> type[Any]:
        """The class of one method, its plugin imported on first use."""
        return self.method_of(catalog.find(name, kind))

    def method_of(self, card: Card) -> type[Any]:
        """The class that ``card`` announces."""
        if card.kind not in KINDS:
            raise UnknownMethod(f"{card.name!r} is an {card.kind}, not a method")
        self.load(card)
        offered = self._offered(card)
        if card.name not in offered:
            raise PluginError(f"{card.package} announces {card.kind} {card.name!r} but its hook does not return it")
        cls = offered[card.name]
        if not (isinstance(cls, type) and issubclass(cls, KINDS[card.kind])):
            raise PluginError(f"{card.package}: {card.kind} {card.name!r} is not a {KINDS[card.kind].__name__} class")
        return cls

    def build(self, name: str, kind: str | None = None, **fields: Any) -> Any:
        """One method with its fields set; values may be text, as on the command line."""
        return self.method(name, kind).from_options(fields, catalog.find(name, kind).name)

    def load(self, card: Card) -> None:
        """Import and register the plugin of ``card``, once."""
        name = f"{card.package}:{card.entry.value}"
        if self.manager.has_plugin(name):
            return
        try:
            module = card.entry.load()
        except (Exception, SystemExit) as error:  # a guest's import may raise anything; it is named and chained
            why = " ".join(f"{type(error).__name__}: {error}".split())
            raise PluginError(f"{card.package} {card.version} fails to import: {why}") from error
        try:
            self.manager.register(module, name=name)
            self.manager.check_pending()
        except (pluggy.PluginValidationError, ValueError) as error:
            self.manager.unregister(name=name)
            raise PluginError(f"{card.package} {card.version}: {' '.join(str(error).split())}") from error

    def load_all(self, group: str) -> None:
        """Import every plugin of an extra group (``opener``)."""
        for card in catalog.cards():
            if card.kind == group:
                self.load(card)

    def _offered(self, card: Card) -> dict[str, type[Method]]:
        """What the plugin of ``card`` offers of its kind."""
        name = f"{card.package}:{card.entry.value}"
        offered: dict[str, type[Method]] = {}
        for hook in getattr(self.manager.hook, card.kind).get_hookimpls():
            if hook.plugin_name == name:
                offered |= _call(hook.function, card)
        return offered


def _call(hook: Callable[[], Any], card: Card) -> dict[str, type[Method]]:
    try:
        result = hook()
    except Exception as error:  # a guest's hook may raise anything; it is named and chained
        why = f"{type(error).__name__}: {error}"
        raise PluginError(f"{card.package} {card.version}: its hook {card.kind} fails: {why}") from error
    if not isinstance(result, dict):
        raise PluginError(f"{card.package}: hook {card.kind} must return a dict, not {type(result).__name__}")
    return result


_host: Host | None = None


def method(name: str, kind: str | None = None, **fields: Any) -> Any:
    """One installed method by name, ready to use: ``method("adamp", lr=1e-3).build(model.parameters())``."""
    global _host
    _host = _host or Host()
    return _host.build(name, kind, **fields)
