"""What a benchmark measured, below its card, and the offer to keep it in the repository."""

from bot.benchmark import LEGEND, Benchmark, shape, table
from bot.views.blocks import View, actions, button, context, preformatted, section
from bot.views.text import code, escape

KEEP_REPORT = "keep_report"


def measured(op_id: str, benchmark: Benchmark, *, pull: str = "", wrong: str = "") -> View:
    """The table, and the report's pull request; as long as there is none, the button for it, and why it came to none."""
    about = benchmark.context
    blocks = [
        section(f"*Benchmark of {code(benchmark.endpoint)}*: {escape(about.gpu)} in {code(about.machine)}"),
        preformatted(table(benchmark)),
        context(f"{LEGEND} Load: {shape(about)}."),
    ]
    if pull:
        blocks.append(
            section(f"📄 <{pull}|A pull request> keeps it in the platform's repository: review and merge it there.")
        )
    else:
        said = "Worth keeping, to compare the next one with? The report has the commit, the machine and the arguments."
        if wrong:
            said = f"❌ No pull request could be opened: {escape(wrong.rstrip('.'))}. Mend that, and press again."
        blocks += [section(said), actions(button("Open a pull request", KEEP_REPORT, op_id))]
    return View(text=f"Benchmark of {benchmark.endpoint}", blocks=blocks)
