"""Saves memory: prevents imports of libraries that the bot's process never uses."""

import importlib.util
import os
import sys
from types import ModuleType
from typing import Any


def prevent_unused_imports() -> None:
    """Prevent imports that the bot's process never uses. This saves 20 of 100 MiB, measured by benchmarks/start.py."""
    # If they are installed, structlog and httpx load click and rich for output on a terminal, and redis-py loads
    # OpenTelemetry's metrics. They work without them. None in sys.modules is the documented way to mark a module as
    # missing.
    sys.modules.update(dict.fromkeys(("click", "rich", "opentelemetry.sdk.metrics")))  # type: ignore[arg-type]
    # The bot uses the client and the configuration of `kubernetes.aio`. The parent packages would also load the
    # synchronous client with requests and oauthlib. Each of their modules can still be imported by its name.
    kubernetes = _without_init("kubernetes")
    _without_init("kubernetes.aio", parent=kubernetes)
    # The bot uses only GitPython's class that runs a command. The package would also load indexes, remotes and object
    # databases.
    _without_init("git")
    _without_init("gitdb")
    # docket's result store checks the types of its arguments with beartype. Without this stub, beartype would be loaded
    # even if the checks are disabled.
    os.environ.setdefault("PY_KEY_VALUE_DISABLE_BEARTYPE", "true")
    sys.modules.update(_beartype_without_checks())
    _import_aiohttp()


def _import_aiohttp() -> None:
    """Import aiohttp without loading the certificate authorities (0.8 MiB) for its TLS context that verifies nothing."""
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
            """Accept the arguments of beartype's class."""

    def unchecked(function: Any = None, **_: Any) -> Any:
        return function if function is not None else unchecked

    beartype, claw = ModuleType("beartype"), ModuleType("beartype.claw")
    vars(beartype).update(BeartypeConf=Configuration, BeartypeStrategy=Configuration, beartype=unchecked, claw=claw)
    vars(claw).update(beartype_this_package=unchecked)
    return {"beartype": beartype, "beartype.claw": claw}
