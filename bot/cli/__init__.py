"""The sub-commands of `stoker`, one module per sub-command; `bot.cli.main` registers them."""
