"""The command `stoker`: the bot itself (`stoker run`), or one of the terminal's commands.

The bot's process lives for weeks beside a team's other pods, so what only a terminal needs is not loaded into it.
"""

import os
import sys


def main() -> None:
    if sys.argv[1:] == ["run"]:
        _stay_small()
        from bot.app import start

        sys.exit(start())
    from bot.cli.main import cli

    cli()


def _stay_small() -> None:
    """Keep out what the bot's process would load and never use: 6 of its 100 MiB, measured by benchmarks/start.py."""
    # structlog and httpx load click and rich, to draw on a terminal, and redis-py the metrics of OpenTelemetry, which
    # nothing here exports, wherever they are installed; each does without. None in sys.modules is the documented way to
    # say that there is no such module.
    sys.modules.update(dict.fromkeys(("click", "rich", "opentelemetry.sdk.metrics")))  # type: ignore[arg-type]
    # The switch of docket's result store for checks of its own arguments' types, which beartype would generate.
    os.environ.setdefault("PY_KEY_VALUE_DISABLE_BEARTYPE", "true")


if __name__ == "__main__":
    main()
