"""Determine from a pod's status and events why it is not running. Pure: Kubernetes' JSON in, a problem out."""

import re
from collections.abc import Iterable
from dataclasses import replace

from bot.clients.diagnosis.cause import Cause, Kind
from bot.clients.diagnosis.causes import CAUSES
from bot.clients.diagnosis.problems import (
    ATTACH,
    CLAIM,
    CREATE,
    NODE_DISK,
    NONE,
    NOT_SCALED,
    PULL,
    PULL_DENIED,
    PULL_LIMIT,
    QUOTA,
    SANDBOX,
    SCALE_UP,
    SECRET_MISSING,
    SECRET_SYNC,
    WEBHOOK,
    WHILE_PULLING,
    Events,
    Grace,
    KubeObject,
    Problem,
    claims_of,
    container_statuses,
    message_of,
    subject,
)


def without_node(pod: KubeObject, events: Events, everything: Iterable[KubeObject] = ()) -> Problem | None:
    """The reason why a pod has no node yet; None if the wait is normal. `everything` includes the events of its volume
    claims.
    """
    scaling = [e for e in events if e.get("reason") in ("FailedScaleUp", "TriggeredScaleUp", "NotTriggerScaleUp")]
    last = scaling[-1].get("reason") if scaling else ""
    failed_scale_ups = [e for e in scaling if e.get("reason") == "FailedScaleUp"]
    if last == "FailedScaleUp" or (
        last == "NotTriggerScaleUp" and failed_scale_ups and "backoff" in message_of(scaling[-1])
    ):
        return _no_machine(message_of(failed_scale_ups[-1]))
    scheduling = [e for e in events if e.get("reason") == "FailedScheduling"]
    message = message_of(scheduling[-1]) if scheduling else ""
    if going := re.search(r'persistentvolumeclaim "(?P<name>[^"]+)" is being deleted', message):
        return Problem(
            Kind.VOLUME,
            f"The volume claim {going['name']} is being deleted: {message}",
            "Wait until it is gone and sync the endpoint's Application; it remains as long as a pod uses it (kubectl describe pvc).",
            CLAIM,
            f"the volume claim {going['name']} is being deleted",
            claim=going["name"],
        )
    if missing := re.search(r'persistentvolumeclaim "(?P<name>[^"]+)" not found', message):
        return Problem(
            Kind.VOLUME,
            f"The volume claim {missing['name']} does not exist: {message}",
            "Sync the endpoint's Application, which has the PVC, or correct `claimName` in the Deployment.",
            CLAIM,
            f"the volume claim {missing['name']} does not exist",
            claim=missing["name"],
        )
    if re.search(r"unbound immediate PersistentVolumeClaims|provisioning failed for PVC|binding volumes: ", message):
        names = claims_of(pod)
        failed = [e for e in everything if e.get("reason") == "ProvisioningFailed" and subject(e) in names]
        reason = message_of(failed[-1]) if failed else message
        return Problem(
            Kind.VOLUME,
            f"The volume claim {', '.join(names)} is not bound: {reason}",
            "Check the storage class, its quota and the zone of the volume (kubectl describe pvc).",
            CLAIM,
            f"the volume claim {', '.join(names)} is not bound: {reason}",
            claim=names[0] if names else "",
        )
    if last == "TriggeredScaleUp":
        return None
    if re.search(r"volume node affinity conflict|didn't find available persistent volumes to bind", message):
        return Problem(
            Kind.VOLUME,
            f"The volume is in another zone than the nodes: {message}",
            "Let the node pool use the volume's zone, or delete the PVC so that it is created and staged in the GPU's zone.",
            NOT_SCALED,
            message,
        )
    if last == "NotTriggerScaleUp":
        reason = message_of(scaling[-1])
        if "max node group size reached" in reason:
            return Problem(
                Kind.CAPACITY,
                f"The node pool has reached its maximum size: {reason}. The scheduler's message: {message}",
                "Raise the maximum size of the GPU node pool, or free a node.",
                NOT_SCALED,
                reason,
            )
        return Problem(
            Kind.SCHEDULING,
            f"No node fits the pod, and the autoscaler does not add one: {reason}. The scheduler's message: {message}",
            "Compare the pod's nodeSelector, tolerations and requests with the labels, taints and size of the node pool.",
            NOT_SCALED,
            message or reason,
        )
    return None


_NO_STOCK = re.compile(
    r"out of resources|stockout|resource_pool_exhausted|InsufficientInstanceCapacity|UnfulfillableCapacity"
    r"|AllocationFailed|SkuNotAvailable|not have sufficient capacity",
    re.IGNORECASE,
)
"""Messages of GCE, EC2 and Azure for a machine that is out of stock."""


def _no_machine(message: str) -> Problem:
    if re.search(r"quota|LimitExceeded|CountExceeded", message, re.IGNORECASE):
        return Problem(
            Kind.CAPACITY,
            f"The GPU quota is used up: {message}",
            "Ask for more quota in the cloud project, or free a GPU elsewhere.",
            SCALE_UP,
            message,
        )
    if _NO_STOCK.search(message):
        return Problem(
            Kind.CAPACITY,
            f"The zone has no GPU machine in stock: {message}",
            "Try again later, or let the node pool use another zone or machine type.",
            SCALE_UP,
            message,
        )
    return Problem(
        Kind.CAPACITY,
        f"The autoscaler cannot add a node: {message}",
        "Check the node pool in the cloud's console: its limits, quota and service account.",
        PULL,
        message,
    )


def wants_gpu(events: Events) -> bool:
    """Return whether the scheduler found no free GPU, and the autoscaler is not adding a node."""
    reasons = {e.get("reason") for e in events}
    lacking = any(e.get("reason") == "FailedScheduling" and "nvidia.com/gpu" in message_of(e) for e in events)
    return lacking and "TriggeredScaleUp" not in reasons


def creation_refused(events: Events) -> Problem | None:
    """The reason why no pod could be created, from the newest event of the ReplicaSet (or the Job)."""
    creations = [e for e in events if e.get("reason") in ("FailedCreate", "SuccessfulCreate")]
    if not creations or creations[-1].get("reason") != "FailedCreate":
        return None
    message = message_of(creations[-1])
    grace = NONE
    if "exceeded quota" in message:
        grace = QUOTA
    elif re.search(r"failed calling webhook|timeout|deadline|connection refused|no endpoints", message, re.IGNORECASE):
        grace = WEBHOOK
    elif re.search(r"serviceaccount \S+ not found|error looking up service account", message):
        grace = SECRET_MISSING
    return Problem(
        Kind.ADMISSION,
        f"Kubernetes refused to create the pod: {message}",
        "Raise the namespace's quota, or correct what the message names (a policy, a webhook, an account).",
        grace,
        message,
    )


_VOLUME_EVENTS = ("FailedAttachVolume", "FailedMount", "FailedMapVolume")
_ATTACHED_ELSEWHERE = re.compile(
    r"Multi-Attach|IN_USE_BY_ANOTHER_RESOURCE|VolumeInUse|already (?:attached|exclusively attached|being used)|currently attached to",
    re.IGNORECASE,
)
"""Messages of the attach controller, GCE, EC2 and Azure for a disk that is attached to another node."""
_MOUNTED = ("SuccessfulAttachVolume", "Pulling", "Pulled", "Created", "Started")


def not_started(pod: KubeObject, events: Events) -> Problem | None:
    """The reason why a pod with a node has no running container yet: its volumes, network, images or configuration."""
    return _volume(pod, events) or _sandbox(events) or _waiting(pod, events)


def _volume(pod: KubeObject, events: Events) -> Problem | None:
    relevant = [e for e in events if e.get("reason") in (*_VOLUME_EVENTS, *_MOUNTED)]
    failing: list[KubeObject] = []
    for event in reversed(relevant):  # only the events after the last one that shows progress
        if event.get("reason") not in _VOLUME_EVENTS:
            break
        failing.append(event)
    if not failing or any("running" in (s.get("state") or {}) for s in container_statuses(pod)):
        return None
    # A failed attachment is the reason for the failed mount that follows it.
    attach = next((e for e in failing if e.get("reason") == "FailedAttachVolume"), None)
    message = message_of(attach or failing[0])
    if re.search(r"failed to sync (?:secret|configmap) cache", message):
        return _unsynced(message)
    if re.search(r'(?:secret|configmap) "[^"]+" not found|references non-existent (?:secret|config) key', message):
        return _missing(message, "a volume", "FailedMount")
    names = claims_of(pod)
    claim = next((name for name in names if name in message), names[0] if names else "")
    if attach and _ATTACHED_ELSEWHERE.search(message):
        return Problem(
            Kind.VOLUME,
            f"The volume claim {claim} is still attached to another node: {message}",
            "Wait for that pod to end, or delete it (kubectl delete pod); a ReadWriteOnce volume serves one node at a time.",
            ATTACH,
            f"the volume claim {claim} is still attached elsewhere: {message}",
            claim=claim,
        )
    return Problem(
        Kind.VOLUME,
        f"The volume cannot be mounted: {message}",
        "Check the volume and its attachment (kubectl describe pvc, kubectl get volumeattachment).",
        ATTACH,
        message,
        claim=claim,
    )


def with_holder(problem: Problem, pod: KubeObject, pods: Iterable[KubeObject]) -> Problem:
    """Add to the problem the name of the pod that still uses the volume, if the name can be determined."""
    for candidate in pods:
        if candidate["metadata"]["name"] == pod["metadata"]["name"] or not candidate["spec"].get("nodeName"):
            continue
        if problem.claim in claims_of(candidate) and (candidate.get("status") or {}).get("phase") not in (
            "Succeeded",
            "Failed",
        ):
            name, node = candidate["metadata"]["name"], candidate["spec"]["nodeName"]
            holder = f"pod {name} on node {node} still holds the volume claim {problem.claim}"
            return replace(
                problem,
                detail=f"{holder}: {problem.detail}",
                reason=f"{holder[0].upper()}{holder[1:]}. {problem.reason}",
            )
    return problem


def _sandbox(events: Events) -> Problem | None:
    relevant = [e for e in events if e.get("reason") in ("FailedCreatePodSandBox", *_MOUNTED)]
    if not relevant or relevant[-1].get("reason") != "FailedCreatePodSandBox":
        return None
    message = message_of(relevant[-1])
    return Problem(
        Kind.NETWORK,
        f"The pod's sandbox cannot be created: {message}",
        "Check the node's network plugin (its pods in kube-system), or drain the node.",
        SANDBOX,
        message,
    )


def _waiting(pod: KubeObject, events: Events) -> Problem | None:
    for status in container_statuses(pod):
        waiting = (status.get("state") or {}).get("waiting") or {}
        reason, message = str(waiting.get("reason") or ""), str(waiting.get("message") or "")
        match reason:
            case "ErrImagePull" | "ImagePullBackOff" | "RegistryUnavailable" | "ErrImageInspect":
                return _pull(status, reason, message, events)
            case "InvalidImageName" | "ErrImageNeverPull" | "SignatureValidationFailed":
                return _pull_failed(status, reason, message, NONE)
            case "CreateContainerConfigError":
                return _configuration(status["name"], message)
            case "CreateContainerError" | "RunContainerError" | "StartError":
                return _uncreated(status, reason, message)
    return None


_PULL_PASSES = re.compile(
    r"i/o timeout|timed? ?out|deadline|\bEOF\b|reset by peer|connection refused|no such host|TLS handshake|unreachable"
    r"|\b50\d\b|temporar|try again|cancell?ed",
    re.IGNORECASE,
)


def _pull(status: KubeObject, reason: str, message: str, events: Events) -> Problem:
    problem = _pull_refused(status, reason, message, events)
    attempts = [e for e in events if e.get("reason") in ("Pulling", "Failed", "BackOff")]
    if (
        problem.grace.seconds and attempts and attempts[-1]["reason"] == "Pulling"
    ):  # the status still shows the failed attempt
        return replace(problem, grace=replace(problem.grace, seconds=max(problem.grace.seconds, WHILE_PULLING)))
    return problem


def _pull_refused(status: KubeObject, reason: str, message: str, events: Events) -> Problem:
    cause = re.sub(r"^Back-off pulling image \"[^\"]*\":?\s*", "", message)
    if not cause:  # the message of the back-off does not contain the reason; the event before it does
        pulls = [e for e in events if e.get("reason") == "Failed" and "Failed to pull image" in message_of(e)]
        cause = message_of(pulls[-1]) if pulls else message
    if re.search(r"toomanyrequests|\b429\b|too many requests", cause, re.IGNORECASE):
        return _pull_failed(status, reason, cause, PULL_LIMIT)
    if re.search(r"no space left", cause):
        return _pull_failed(status, reason, cause, NODE_DISK)
    if _PULL_PASSES.search(cause):
        return _pull_failed(status, reason, cause, PULL)
    if re.search(
        r"not found|manifest unknown|does not exist|no match for platform|platform does not match|invalid reference",
        cause,
        re.IGNORECASE,
    ):
        return _pull_failed(status, reason, cause, NONE)
    if re.search(r"unauthorized|denied|forbidden|\b40[13]\b|authenticat", cause, re.IGNORECASE):
        return _pull_failed(status, reason, cause, PULL_DENIED)
    return _pull_failed(status, reason, cause, PULL)


def _pull_failed(status: KubeObject, reason: str, message: str, grace: Grace) -> Problem:
    remedy = {
        PULL_LIMIT: "Wait, or pull with your own account, or through a mirror.",
        NODE_DISK: "Use a node pool with a larger boot disk: an engine image needs 10 to 20 GB.",
        PULL: "Check that the node reaches the registry (network policy, NAT, proxy, DNS).",
        PULL_DENIED: "Check the pull secret in the Deployment, and the node's rights on the registry.",
    }.get(grace, "Check the image's name, digest and pull secret in the Deployment.")
    return Problem(
        Kind.IMAGE,
        f"The image of container {status['name']} cannot be pulled ({reason}): {message or status.get('image', '')}",
        remedy,
        grace,
        message or reason,
    )


def _configuration(container: str, message: str) -> Problem:
    if re.search(r"failed to sync (?:secret|configmap) cache", message):
        return _unsynced(message)
    if re.search(r"runAsNonRoot|run as root|non-numeric user", message):
        return Problem(
            Kind.PERMISSION,
            f"Container {container} cannot be created: {message}",
            "Set a numeric `runAsUser` in the Deployment's securityContext.",
            detail=message,
        )
    return _missing(message, f"container {container}")


def _unsynced(message: str) -> Problem:
    return Problem(
        Kind.CONFIGURATION,
        f"The node cannot read a Secret or ConfigMap of the pod: {message}",
        "Check the node's connection to the API server, or drain the node.",
        SECRET_SYNC,
        message,
    )


def _missing(message: str, subject_name: str, reason: str = "CreateContainerConfigError") -> Problem:
    return Problem(
        Kind.CONFIGURATION,
        f"A Secret or ConfigMap that {subject_name} needs is missing ({reason}): {message}",
        "Create the Secret or ConfigMap (or its key) that the message names, or correct its name in the Deployment.",
        SECRET_MISSING,
        message,
    )


def _uncreated(status: KubeObject, reason: str, message: str) -> Problem:
    ended = (status.get("lastState") or {}).get("terminated") or {}
    text = str(ended.get("message") or message)
    if explained := runtime_cause(text):
        headline, remedy, cause = explained
        return Problem(
            cause.kind,
            f"{headline.rstrip('.')} (container {status['name']}, {reason})",
            remedy,
            detail=headline,
            log=text,
        )
    return Problem(
        Kind.CONFIGURATION,
        f"Container {status['name']} cannot be started ({reason}): {text}",
        "Correct what the message names in the Deployment; if it names the node, drain it.",
        CREATE,
        text,
        log=text,
    )


def runtime_cause(text: str) -> tuple[str, str, Cause] | None:
    """Headline, remedy and cause for a message of the container runtime."""
    for cause in CAUSES:
        if not (cause.kind is Kind.NETWORK and cause.vague) and (match := cause.find(text)):
            return *cause.explain(match), cause
    return None
