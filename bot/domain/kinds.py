"""The properties of each kind of operation: one table, so that the engine and the views need not name kinds."""

from collections.abc import Mapping
from enum import Enum, StrEnum

from bot.domain import phases
from bot.domain.phases import Phase
from bot.text.mrkdwn import Mrkdwn, md
from manifests.frozen import frozen


class Kind(StrEnum):
    GPU_UP = "gpu up"
    GPU_DOWN = "gpu down"
    GPU_RESTART = "gpu restart"
    GPU_EXTEND = "gpu extend"
    GPU_RELEASE = "gpu release"
    MODEL_ADD = "model add"
    MODEL_SWAP = "model swap"
    MODEL_REMOVE = "model remove"
    MODEL_TUNE = "model tune"
    MODEL_REVERT = "model revert"
    MODEL_SMOKE = "model smoke"
    MODEL_BENCH = "model bench"
    MODEL_STAGE = "model stage"

    @property
    def spec(self) -> "KindSpec":
        return SPECS[self]


class CancelRule(Enum):
    """The time until which an operation can be cancelled."""

    BEFORE_START = "until it starts"
    WHILE_RUNNING = "while it runs: its task rolls it back"
    UNTIL_MERGE = "while it stages weights before the merge, or waits for a person; a merge is not rolled back"


@frozen
class KindSpec:
    name: str
    """The verb of the command, also used in branch names and pull requests."""
    title: str
    """The title; `{model}` and `{hf_id}` come from the request."""
    phases: tuple[Phase, ...] = ()
    """The usual phases; the card also shows the phases that have not started yet."""
    needs_approval: bool = False
    """True if an operation of this kind may need an approval before it runs."""
    uses_pull_request: bool = False
    cancel: CancelRule = CancelRule.BEFORE_START
    cancel_hint: Mrkdwn = Mrkdwn()
    """The card's hint about *Cancel*."""
    does: str = ""
    """The verb of the sentence about its pull request; the model's name follows."""
    starts_model: bool = False
    """True if it boots a model on the GPU: ending it stops costs."""
    stops_model: bool = False
    """True if it may intentionally take the model off the GPU, or change the template of its Deployment."""
    turns_cost_off: bool = False
    """True if its work ends a cost, so that it must be completed even after errors."""
    undo_stops_model: bool = False
    """True if its rollback has to stop costs, even if everything else fails."""


_BOOT = (phases.WAIT_FOR_NODE, phases.PULL_IMAGE, phases.STAGE_WEIGHTS, phases.LOAD, phases.SMOKE_TESTS)
_BRING_DOWN = (phases.SCALE_TO_ZERO, phases.WAIT_GONE)
_ROLL_OUT = (phases.MERGE, phases.SYNC_GATEWAY, phases.SYNC_ENDPOINT)
_UNTIL_MERGE = md("Cancel works until the merge; after that, use *Revert*")


def _change(
    name: str, title: str, does: str, usual_phases: tuple[Phase, ...] = _ROLL_OUT, *, stops_model: bool = False
) -> KindSpec:
    return KindSpec(
        name,
        title,
        usual_phases,
        needs_approval=True,
        uses_pull_request=True,
        cancel=CancelRule.UNTIL_MERGE,
        cancel_hint=_UNTIL_MERGE,
        does=does,
        stops_model=stops_model,
    )


SPECS: Mapping[Kind, KindSpec] = {
    Kind.GPU_UP: KindSpec(
        "up",
        "Bring up {model}",
        (phases.SYNC, phases.START, *_BOOT),
        needs_approval=True,
        cancel=CancelRule.WHILE_RUNNING,
        cancel_hint=md("Cancel works while the model boots; after that, use `/gpu down`"),
        starts_model=True,
        stops_model=True,
        undo_stops_model=True,
    ),
    Kind.GPU_DOWN: KindSpec(
        "down", "Bring down {model}", _BRING_DOWN, stops_model=True, turns_cost_off=True, undo_stops_model=True
    ),
    Kind.GPU_RESTART: KindSpec(
        "restart",
        "Restart {model}",
        (phases.STOP_OLD_POD, phases.START, *_BOOT),
        cancel=CancelRule.WHILE_RUNNING,
        cancel_hint=md("Cancel ends the session; so does `/gpu down`"),
        starts_model=True,
        stops_model=True,
        undo_stops_model=True,
    ),
    Kind.GPU_EXTEND: KindSpec("extend", "Extend {model}", needs_approval=True),
    Kind.GPU_RELEASE: KindSpec(
        "release", "Break the lease of {model}", _BRING_DOWN, needs_approval=True, stops_model=True
    ),
    Kind.MODEL_ADD: _change("add", "Add {model}, serving {hf_id}", "adds"),
    Kind.MODEL_SWAP: _change("swap", "Swap {model} to {hf_id}", "swaps", stops_model=True),
    Kind.MODEL_REMOVE: _change(
        "remove",
        "Remove {model}",
        "removes",
        (phases.MERGE, phases.SYNC_GATEWAY, phases.REMOVE_ENDPOINT),
        stops_model=True,
    ),
    Kind.MODEL_TUNE: _change("tune", "Tune the cold start of {model}", "keeps the compile caches of"),
    Kind.MODEL_REVERT: _change(
        "revert", "Revert the last change of {model}", "reverts the last change of", (), stops_model=True
    ),
    Kind.MODEL_SMOKE: KindSpec("smoke", "Smoke-test {model}", (phases.SMOKE_TESTS,)),
    Kind.MODEL_BENCH: KindSpec(
        "bench",
        "Benchmark {model}",
        (phases.START_BENCHMARK, phases.MEASURE),
        cancel=CancelRule.WHILE_RUNNING,
        cancel_hint=md("Cancel works until the results are posted"),
    ),
    Kind.MODEL_STAGE: KindSpec(
        "stage",
        "Stage the weights of {model}",
        (phases.START_STAGING, phases.DOWNLOAD),
        cancel=CancelRule.WHILE_RUNNING,
        cancel_hint=md("Cancel works until the weights are downloaded; downloaded files stay on the volume"),
    ),
}
