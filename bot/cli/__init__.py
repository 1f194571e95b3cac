"""The sub-commands of `stoker`, one file per noun; `bot.cli.main` mounts them."""
