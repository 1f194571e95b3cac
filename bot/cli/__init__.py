"""The sub-commands of `stoker`, one file per noun; `bot.__main__` mounts them."""
