"""Keeps libraries that the bot's process never uses out of its memory."""

import importlib.util
import os
import sys
from types import ModuleType
from typing import Any


def prevent_unused_imports() -> None:
    """Prevent imports that the bot's process never uses: 20 of its 100 MiB, measured by benchmarks/start.py."""
    # structlog and httpx load click and rich, to draw on a terminal, and redis-py loads OpenTelemetry's metrics,
    # wherever they are installed; all three work without. None in sys.modules is the documented way to mark a module as
    # missing.
    sys.modules.update(dict.fromkeys(("click", "rich", "opentelemetry.sdk.metrics")))  # type: ignore[arg-type]
    # The bot uses the client and the configuration of `kubernetes.aio`; the packages above them also load the
    # synchronous client with requests and oauthlib. Each of their modules can still be imported by its name.
    kubernetes = _without_init("kubernetes")
    _without_init("kubernetes.aio", parent=kubernetes)
    # The bot uses only GitPython's class that runs a command; the package also loads indexes, remotes, object
    # databases.
    _without_init("git")
    _without_init("gitdb")
    # docket's result store uses beartype to check the types of its arguments. Without this stub, beartype would be
    # loaded even if it is switched off.
    os.environ.setdefault("PY_KEY_VALUE_DISABLE_BEARTYPE", "true")
    sys.modules.update(_beartype_without_checks())
    _import_aiohttp()


def _import_aiohttp() -> None:
    """aiohttp has one TLS context that verifies nothing, and would load every certificate authority for it (0.8 MiB)."""
    import ssl

    load = ssl.SSLContext.set_default_verify_paths

    def load_if_verified(context: ssl.SSLContext) -> None:
        if context.verify_mode is not ssl.CERT_NONE:
            load(context)

    ssl.SSLContext.set_default_verify_paths = load_if_verified  # type: ignore[method-assign, assignment]
    try:
        importlib.import_module("aiohttp.connector")
    finally:
        ssl.SSLContext.set_default_verify_paths = load  # type: ignore[method-assign]


def _without_init(name: str, parent: ModuleType | None = None) -> ModuleType:
    """Put the package into sys.modules without running its `__init__`; its modules are imported as usual."""
    package = ModuleType(name)
    if parent is None:
        spec = importlib.util.find_spec(name)
        package.__path__ = list(spec.submodule_search_locations or ()) if spec else []
    else:
        child = name.rpartition(".")[2]
        package.__path__ = [os.path.join(folder, child) for folder in parent.__path__]  # noqa: PTH118  # pathlib is not loaded yet
        setattr(parent, child, package)
    sys.modules[name] = package
    return package


def _beartype_without_checks() -> dict[str, ModuleType]:
    """The names of beartype that py-key-value imports, as no-ops."""

    class Configuration:
        O0 = O1 = None

        def __init__(self, **_: Any) -> None:
            """Accepts the same arguments as beartype's."""

    def unchecked(function: Any = None, **_: Any) -> Any:
        return function if function is not None else unchecked

    beartype, claw = ModuleType("beartype"), ModuleType("beartype.claw")
    vars(beartype).update(BeartypeConf=Configuration, BeartypeStrategy=Configuration, beartype=unchecked, claw=claw)
    vars(claw).update(beartype_this_package=unchecked)
    return {"beartype": beartype, "beartype.claw": claw}
