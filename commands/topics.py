"""Everything that can be said: the verbs of the two commands, and what help tells of each."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Topic:
    """One thing that can be said after a command.

    In `example`, `{gpu}` stands for an endpoint of this platform that needs the GPU and `{any}` for any; `more` is
    what `help VERB` says beyond the line in the list; `also` are words that people say instead.
    """

    verb: str
    usage: str
    does: str
    example: str = ""
    more: str = ""
    also: tuple[str, ...] = ()


@dataclass(frozen=True)
class Command:
    about: str
    topics: tuple[Topic, ...]


_OPTIONS = (
    "Options: `like=TEMPLATE` (add), `served=NAME`, `context=16384`, `quantization=awq_marlin|none`, `gpu-util=0.9`,"
    " `storage=20Gi`, `price-in=`, `price-out=`, `group=`, `arg=--flag=value` (repeatable). What is not said is derived"
    " from the model on Hugging Face and shown before anything is opened. With `up` behind them the endpoint is brought up"
    " after the roll-out, under the same approval, and down again when it has answered; with `up keep for 2h` it stays."
)

COMMANDS: Mapping[str, Command] = {
    "/gpu": Command(
        "the shared GPU",
        (
            Topic(
                "status",
                "",
                "who holds it, for which model, since when, what it has cost",
                also=("info", "who"),
            ),
            Topic(
                "up",
                "NAME [keep] [for 2h] [because …]",
                "bring a model up; a teammate approves",
                example="{gpu} for 2h because demo tonight",
                more="The card shows the commit, what will be synced and what it costs. The lease starts when the model answers."
                " With `keep` it stays up even if its smoke tests fail.",
                also=("start", "on", "run", "load", "claim", "lock"),
            ),
            Topic(
                "down",
                "[NAME]",
                "bring it down, with a receipt; needs no approval",
                example="{gpu}",
                more="Without a name, whatever holds the GPU goes down. It works without Redis too, if you say the name.",
                also=("stop", "off", "kill", "free", "unlock", "unload"),
            ),
            Topic(
                "extend",
                "1h [NAME]",
                "prolong your lease",
                example="1h",
                more="Within the limit at once; over it, an approver decides.",
                also=("prolong", "keep", "renew"),
            ),
            Topic(
                "queue",
                "",
                "who waits for the GPU, and when their turn comes",
                also=("wait", "next"),
            ),
            Topic("leave", "", "leave the queue"),
            Topic(
                "release",
                "[NAME] because …",
                "admins: break somebody's lease, in public",
                example="because the demo is over and nobody answers",
                more="Another approver agrees first. The holder and the channel see the reason.",
                also=("break", "force"),
            ),
            Topic(
                "report",
                "",
                "the last weeks as a picture: hours by model and person, idle share, cost",
                more="It is posted in the channel of operations. Sessions count where they began, with the hours that nodes billed.",
                also=("cost", "costs", "week"),
            ),
            Topic("doctor", "", "admins: what is wrong with the installation, and how to mend it"),
            Topic("help", "[VERB]", "this, or all about one of them", example="up"),
        ),
    ),
    "/model": Command(
        "what is served",
        (
            Topic(
                "list",
                "",
                "the endpoints: up or down, in sync, price, open pull request, last smoke test",
                more="An endpoint is *drifted* when the cluster has something else than the main branch.",
                also=("ls", "all"),
            ),
            Topic(
                "show",
                "NAME",
                "everything about one endpoint",
                example="{any}",
                also=("describe", "get"),
            ),
            Topic(
                "add",
                "NAME [HF_ID] [options]",
                "a pull request with a new endpoint; without `HF_ID` a form asks",
                example="coder-mini Qwen/Qwen2.5-Coder-3B-Instruct-AWQ like={gpu}",
                more=_OPTIONS,
                also=("new", "create", "deploy"),
            ),
            Topic(
                "swap",
                "NAME [HF_ID] [options]",
                "a pull request that changes what an endpoint serves",
                example="{gpu} Qwen/Qwen2.5-Coder-3B-Instruct-AWQ context=16384",
                more=_OPTIONS,
                also=("change", "update", "replace", "switch"),
            ),
            Topic(
                "remove",
                "NAME",
                "a pull request that takes an endpoint out again",
                example="{gpu}",
                more="All that `add` put in goes: manifests, Application, LiteLLM's entry, catalog row. The volume with the weights"
                " goes too. An endpoint that is up is brought down first. `portal=yes` takes it out of the key portal as well.",
                also=("delete", "rm"),
            ),
            Topic(
                "check",
                "[NAME]",
                "where the pieces of an endpoint, or of all, disagree on the main branch",
                example="{any}",
                more="Each disagreement with its file, its line and what to write instead.",
                also=("lint", "validate"),
            ),
            Topic(
                "smoke",
                "NAME",
                "smoke-test a running endpoint now",
                example="{any}",
                more="Directly and by its alias through the gateway; the result goes to the channel.",
                also=("test",),
            ),
            Topic(
                "bench",
                "NAME",
                "measure how fast the model is under load; its holder or an approver asks",
                example="{gpu}",
                more="A Job in the cluster loads the model with made-up prompts, 1, 4 and 16 at a time unless `bench.concurrency` says"
                " otherwise. The table and a picture come below the card, and a button puts them into a pull request. It needs"
                " `bench.image`, and it ends with the lease.",
                also=("benchmark", "measure"),
            ),
            Topic("help", "[VERB]", "this, or all about one of them", example="swap"),
        ),
    ),
}
