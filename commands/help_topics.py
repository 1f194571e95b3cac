"""The verbs of the two commands, and their help texts."""

from collections.abc import Mapping

from bot.text.mrkdwn import md
from manifests.frozen import frozen


@frozen
class Topic:
    """One verb of a command.

    In `example`, `{gpu}` stands for an endpoint that needs the GPU and `{any}` for any endpoint. `help VERB` also shows
    `more`. `also` are synonyms.
    """

    verb: str
    usage: str
    does: str
    example: str = ""
    more: str = ""
    also: tuple[str, ...] = ()


@frozen
class Command:
    """A command and its verbs."""

    about: str
    topics: tuple[Topic, ...]


_OPTIONS = (
    "Options: `like=TEMPLATE` (add), `served=NAME`, `context=16384`, `quantization=awq_marlin|none`, `gpu-util=0.9`,"
    " `kind=chat|completion|embeddings|reranker`, `memory=24Gi`, `cpu=4`, `storage=20Gi`, `price-in=0.50`, `price-out=1.50` (dollars per million tokens), `group=`, `arg=--flag=value` (repeatable). Other values are derived"
    " from the model on Hugging Face and shown before the pull request is opened. With `up` at the end, the endpoint is"
    " brought up after the roll-out, under the same approval, and down again after its tests; with `up keep for 2h` it"
    " stays up."
)

COMMANDS: Mapping[str, Command] = {
    "/gpu": Command(
        "the shared GPU",
        (
            Topic(
                "status",
                "",
                "show the holder, the model, the time and the cost so far",
                also=("info", "who"),
            ),
            Topic(
                "up",
                "NAME [keep] [for 2h] [because …]",
                "bring a model up; a teammate approves",
                example="{gpu} for 2h because demo tonight",
                more=md(
                    "The card shows the commit, the Applications to sync and the cost. The lease starts when the model "
                    "answers. With `keep`, the model stays up even if its smoke tests fail."
                ),
                also=("start", "on", "run", "load", "claim", "lock"),
            ),
            Topic(
                "down",
                "[NAME]",
                "bring a model down and post the receipt; needs no approval",
                example="{gpu}",
                more="Without a name, the model that holds the GPU goes down. With a name, this also works without Redis.",
                also=("stop", "off", "kill", "free", "unlock", "unload"),
            ),
            Topic(
                "extend",
                "1h [NAME]",
                "extend your lease",
                example="1h",
                more="Up to the longest lease (`lease.longest`), the extension is immediate; beyond it, an approver decides.",
                also=("prolong", "keep", "renew"),
            ),
            Topic(
                "queue",
                "",
                "list the requests that wait for the GPU, with their times",
                also=("wait", "next"),
            ),
            Topic("leave", "", "leave the queue"),
            Topic(
                "release",
                "[NAME] because …",
                "admins: break another person's lease; the reason is public",
                example="because the demo is over and nobody answers",
                more="Another approver must agree. The holder and the channel see the reason.",
                also=("break", "force"),
            ),
            Topic(
                "report",
                "",
                "post charts of the last weeks: hours by model and person, idle share, cost",
                more="The report is posted in the channel of operations. A session counts in the week in which it began, with the billed hours of its node.",
                also=("cost", "costs", "week"),
            ),
            Topic("doctor", "", "admins: check the installation, with a fix for each problem"),
            Topic("help", "[VERB]", "show this list, or the details of one verb", example="up"),
        ),
    ),
    "/model": Command(
        "what is served",
        (
            Topic(
                "list",
                "[WORD …]",
                "list the endpoints: state, sync, price, open pull request, last smoke test",
                example="up",
                more=md(
                    "Words filter the list: parts of a name, an alias, a model or a group, or `up`, `down`, `booting`, "
                    "`failing`, `drifted`, `held`, `gpu`, `cpu`. An endpoint is *drifted* if the cluster differs from "
                    "the main branch."
                ),
                also=("ls", "all"),
            ),
            Topic(
                "show",
                "NAME",
                "show everything about one endpoint",
                example="{any}",
                also=("describe", "get"),
            ),
            Topic(
                "add",
                "NAME [HF_ID] [options] [now]",
                md(
                    "open a pull request with a new endpoint; without `HF_ID`, a form opens; `now` registers the alias immediately, "
                    "on an engine that already serves the model"
                ),
                example="coder-mini Qwen/Qwen2.5-Coder-3B-Instruct-AWQ like={gpu}",
                more=_OPTIONS,
                also=("new", "create", "deploy"),
            ),
            Topic(
                "swap",
                "NAME [HF_ID] [options]",
                "open a pull request that changes the model of an endpoint",
                example="{gpu} Qwen/Qwen2.5-Coder-3B-Instruct-AWQ context=16384",
                more=_OPTIONS,
                also=("change", "update", "replace", "switch"),
            ),
            Topic(
                "fit",
                "[HF_ID …] [options]",
                "show what models need and whether they fit; opens no pull request",
                example="Qwen/Qwen3-8B-AWQ openai/gpt-oss-20b",
                more="The answer lists the kind, weights, largest context, memory, volume and arguments of each model. Without a model,"
                " it covers `fit.shortlist`. Options: `context=16384`, `gpu-util=0.9`, `quantization=`, `kind=`,"
                " `memory=24Gi`, `gpu=A100-80`, `host-memory=64Gi`. A link to huggingface.co works too.",
                also=("size", "sizing", "fits"),
            ),
            Topic(
                "remove",
                "NAME",
                "open a pull request that removes an endpoint",
                example="{gpu}",
                more=md(
                    "Everything that `add` creates is removed: manifests, Application, LiteLLM's entry, catalog row. The volume with "
                    "the weights is deleted too. Bring a running endpoint down first. `portal=yes` also removes it from "
                    "the key portal."
                ),
                also=("delete", "rm"),
            ),
            Topic(
                "tune",
                "NAME",
                "open a pull request that keeps the compile caches on the volume, so that boots are shorter",
                example="{gpu}",
                more="The name of the directory contains the image's digest, so each new image compiles once. If the image is pinned"
                " by its digest, the pull request also turns off the pull at each start.",
                also=("optimize", "speed", "cache"),
            ),
            Topic(
                "check",
                "[NAME]",
                "find contradictions in the files of one endpoint, or of all, on the main branch",
                example="{any}",
                more="The answer lists the file, the line and the fix of each problem.",
                also=("lint", "validate"),
            ),
            Topic(
                "smoke",
                "NAME",
                "smoke-test a running endpoint now",
                example="{any}",
                more="The tests call the model directly and by its alias through the gateway. The result is posted in the channel.",
                also=("test",),
            ),
            Topic(
                "bench",
                "NAME",
                "measure the model under load; for its holder and approvers",
                example="{gpu}",
                more=md(
                    "A Job in the cluster sends generated prompts to the model, 1, 4 and 16 at a time unless "
                    "`bench.concurrency` sets other numbers. The table and a chart appear below the card, and a button "
                    "opens a pull request with them. The command needs `bench.image`; the benchmark ends with the lease."
                ),
                also=("benchmark", "measure"),
            ),
            Topic(
                "stage",
                "NAME",
                "put an endpoint's weights on its volume without the GPU",
                example="{gpu}",
                more="A Job on a node without a GPU downloads them. `/gpu up` then only has to load them, which shortens the billed"
                " boot. The command needs `staging.mode`.",
                also=("download", "prefetch", "prestage", "warm"),
            ),
            Topic("help", "[VERB]", "show this list, or the details of one verb", example="swap"),
        ),
    ),
}
