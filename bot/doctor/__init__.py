"""Checks each setting and each system of an installation, and explains how to fix the problems.

`examine` only needs settings: it opens its own clients, so it works before the first start and while a bot is running.
It changes nothing.
"""

from bot.doctor.examine import examine
from bot.doctor.findings import Finding, Verdict

__all__ = ["Finding", "Verdict", "examine"]
