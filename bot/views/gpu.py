"""What is said about the GPU beside the operations' cards: something that uses it without a lease."""

from bot.views.blocks import View, actions, button, section
from bot.views.reminder import BRING_DOWN
from bot.views.text import code, inline

ADOPT = "adopt"


def unmanaged(about: str, name: str, *, ours: bool, can_adopt: bool) -> View:
    """The alert about something that uses the GPU without a lease; `ours`: Stoker may scale it."""
    line = (
        f"🚨 {code(about)} uses the GPU, and nobody holds a lease for it (was it started with kubectl?)."
        " It bills, and nothing else can come up."
    )
    buttons = [button("Adopt", ADOPT, name)] if can_adopt else []
    if can_adopt:
        line += " *Adopt* asks for its approval and gives it a lease."
    if ours:
        line += " *Bring down* ends it."
        buttons.append(button("Bring down", BRING_DOWN, name, "danger"))
    else:
        line += " It is not Stoker's to scale: whoever runs it must end it."
    return View(
        text=f"{inline(about, 150)} uses the GPU without a lease",
        blocks=[section(line), *([actions(*buttons)] if buttons else [])],
    )
