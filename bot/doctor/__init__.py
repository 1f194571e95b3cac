"""Check an installation and explain how to fix it: each setting and each system, one line per check.

`examine` only needs settings: it opens its own clients, so it works before the first start, and while a bot is running.
It changes nothing.
"""

from bot.doctor.examine import examine
from bot.doctor.findings import Finding, Verdict

__all__ = ["Finding", "Verdict", "examine"]
