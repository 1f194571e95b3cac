"""What is wrong with an installation, and how to mend it: each setting and each system, one line a check.

`examine` needs settings and nothing else: it opens its own clients, so it works before the first start, and beside a
bot that runs. It changes nothing anywhere.
"""

from bot.doctor.examine import examine
from bot.doctor.findings import Finding, Verdict

__all__ = ["Finding", "Verdict", "examine"]
