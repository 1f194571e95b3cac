"""The phases of the operations, as values: the stored key, and the label for people."""

from manifests.frozen import frozen


@frozen
class Phase:
    """A phase of an operation.

    The key is stored in the step ledger, in records and in metrics, so it never changes; the label may change.
    """

    key: str
    label: str

    def of(self, model: str) -> "Phase":
        """The phase for one model of an operation that handles two; the model's name replaces `{model}` in the key and label."""
        return Phase(self.key.replace("{model}", model), self.label.replace("{model}", model))


SYNC = Phase("syncing", "syncing")
START = Phase("starting", "starting")
STOP_OLD_POD = Phase("stopping the old pod", "stopping the old pod")
WAIT_FOR_NODE = Phase("waiting for a node", "waiting for a node")
PULL_IMAGE = Phase("pulling the image", "pulling the image")
STAGE_WEIGHTS = Phase("staging weights", "staging weights")
LOAD = Phase("loading", "loading")
SMOKE_TESTS = Phase("smoke tests", "smoke tests")
UNDO_BRING_UP = Phase("bringing it down again", "bringing it down again")
UNDO_RESTART = Phase("bringing it down", "bringing it down")

FINISH_REQUESTS = Phase("finishing requests of {model}", "finishing requests of {model}")
BRING_DOWN_OLD = Phase("bringing down {model}", "bringing down {model}")
RESTORE = Phase("restoring {model}", "restoring {model}")
WAIT_FOR_RESTORED = Phase("waiting for {model}", "waiting for {model}")
UNDO_RESTORE = Phase("taking {model} down again", "taking {model} down again")

SCALE_TO_ZERO = Phase("scaling to zero", "scaling to zero")
WAIT_GONE = Phase("waiting until the pod is gone", "waiting until the pod is gone")

MERGE = Phase("merging", "merging")
SYNC_GATEWAY = Phase("Argo CD: the gateway", "Argo CD: the gateway")
SYNC_ENDPOINT = Phase("Argo CD: the endpoint", "Argo CD: the endpoint")
REMOVE_ENDPOINT = Phase("Argo CD: taking the endpoint down", "Argo CD: taking the endpoint down")
RESTART_ENDPOINT = Phase("restarting", "restarting")

START_BENCHMARK = Phase("starting the Job", "starting the Job")
MEASURE = Phase("measuring", "measuring")

START_STAGING = Phase("starting the staging Job", "starting the staging Job")
DOWNLOAD = Phase("downloading the weights", "downloading the weights")
WAIT_FOR_HUB = Phase("waiting for Hugging Face", "waiting for Hugging Face")
GROW_VOLUME = Phase("making the volume grow", "making the volume grow")
WAIT_FOR_WEIGHTS = Phase("waiting for the weights", "waiting for the weights")

READY = Phase("ready", "ready")

STAGING = (GROW_VOLUME, START_STAGING, DOWNLOAD, WAIT_FOR_HUB)
"""Phases in which a Job downloads weights, or is about to."""
