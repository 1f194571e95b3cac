"""The command `stoker`: the bot itself (`stoker run`), or one of the terminal's commands.

The bot's process runs for weeks next to a team's other pods, so it does not load what only a terminal needs.
"""

import sys


def main() -> None:
    if sys.argv[1:] == ["run"]:
        import gc

        from bot.unused_imports import prevent_unused_imports

        gc.disable()  # garbage collections while 1 300 modules are loaded find nothing; `bot.app` enables it again
        prevent_unused_imports()
        from bot.app import start

        sys.exit(start())
    from bot.cli.main import cli

    cli()


if __name__ == "__main__":
    main()
