"""A benchmark's results below its card, and the offer to store them in the repository."""

from bot.analysis.benchmark import COLUMNS, LEGEND, Benchmark, rows, shape
from bot.text.mrkdwn import link, md
from bot.views.blocks import View, actions, button, context, section
from bot.views.newer import table
from bot.views.text import code

KEEP_REPORT = "keep_report"


def benchmark_results(op_id: str, benchmark: Benchmark, *, pull: str = "", failure: str = "") -> View:
    """Render the table, and a link to the report's pull request or the button that opens one.

    `failure` is the reason why the last attempt to open it failed.
    """
    conditions = benchmark.context
    blocks = [
        section(
            md(
                "*Benchmark of {endpoint}*: {gpu} in {machine}",
                endpoint=code(benchmark.endpoint),
                gpu=conditions.gpu,
                machine=code(conditions.machine),
            )
        ),
        table(COLUMNS, rows(benchmark), right=range(len(COLUMNS))),
        context(md("{legend} Load: {shape}.", legend=LEGEND, shape=shape(conditions))),
    ]
    if pull:
        blocks.append(
            section(
                md(
                    "📄 {pull} adds this result to the platform repository. Review and merge it there.",
                    pull=link(pull, "A pull request"),
                )
            )
        )
    else:
        text = md("Keep this result for comparison? The report has the commit, the machine and the arguments.")
        if failure:
            text = md(
                "❌ The pull request could not be opened: {failure}. Fix the problem, then press the button again.",
                failure=failure.rstrip("."),
            )
        blocks += [
            section(text),
            actions(button("Open a pull request", KEEP_REPORT, op_id), about=f"report of {benchmark.endpoint}"),
        ]
    return View(text=md("Benchmark of {endpoint}", endpoint=benchmark.endpoint), blocks=blocks)
