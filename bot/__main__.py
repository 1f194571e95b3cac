"""The command `stoker`: runs the bot (`stoker run`) or another sub-command.

The bot's process runs for weeks, so it does not load the modules that only the other sub-commands need.
"""

import sys


def main() -> None:
    if sys.argv[1:] == ["run"]:
        import gc

        from bot.unused_imports import prevent_unused_imports

        gc.disable()  # loading 1 300 modules creates no garbage; `bot.app` enables the collector again
        prevent_unused_imports()
        from bot.app import start

        sys.exit(start())
    from bot.cli.main import cli

    cli()


if __name__ == "__main__":
    main()
