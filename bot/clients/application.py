"""The state of an Application of Argo CD or a Kustomization of Flux, and the parser for Argo CD's JSON.

Pure: JSON in, values out. `flux` parses the JSON of a Kustomization.
"""

import posixpath
from collections.abc import Iterator, Sequence

from pydantic import BaseModel

from bot.clients.kube import KubeObject
from manifests.deployed import source_of

_WINDOW = "blocked by sync window"
"""The message of Argo CD's controller (controller/sync.go) in an operation that a sync window forbids. The operation's
phase stays Running.
"""


class Application(BaseModel, frozen=True, defer_build=True):
    """The current state of an Application of Argo CD or a Kustomization of Flux. `word` is the kind of the object.

    `automated` is false for a cost-gated Application. `revisions` are the commits (and chart versions) with which the
    cluster was last compared, one per source. `phase`, `message`, `operation_revision` and `operation_revisions` (one
    per source) belong to the latest operation. `errors` are the messages of its error conditions. `out_of_sync` are the
    resources that differ from git, as `Kind/name`. `source` describes the origin and the target of its manifests, as
    text from `manifests.deployed`; `paths` are its directories, and `files` are its Helm value files.
    `reverts_replicas` is true if the deployer resets replicas that differ from git.
    """

    name: str
    path: str | None
    automated: bool
    sync: str
    health: str
    revisions: tuple[str, ...]
    phase: str | None
    message: str
    operation_revision: str | None
    operation_revisions: tuple[str, ...]
    errors: tuple[str, ...] = ()
    out_of_sync: tuple[str, ...] = ()
    source: str = ""
    paths: tuple[str, ...] = ()
    files: tuple[str, ...] = ()
    repositories: tuple[str, ...] = ()
    reverts_replicas: bool = False
    word: str = "Application"

    def synced_at(self, revision: str) -> bool:
        """Return whether the Application is in sync, and `revision` was last compared or last applied. The compared
        and the applied revision differ after later commits that change nothing.
        """
        applied = self.operation_revision if self.phase == "Succeeded" else None
        return self.sync == "Synced" and revision in (*self.revisions, applied)

    @property
    def blocked(self) -> bool:
        """True if a sync window blocks the operation, which would start when the window opens."""
        return self.phase == "Running" and _WINDOW in self.message

    @property
    def drift(self) -> str:
        """A sentence about an Application that still differs from git after a successful sync; otherwise empty."""
        if self.sync == "Synced":
            return ""
        differences = f" ({', '.join(self.out_of_sync[:3])})" if self.out_of_sync else ""
        return f"Argo CD reports {self.sync}{differences} after a successful sync: something in the cluster changes what was applied"


def state_of(resource: KubeObject) -> KubeObject:
    """The state of the latest operation (`status.operationState`); empty if there was none."""
    return (resource.get("status") or {}).get("operationState") or {}


def operation_of(resource: KubeObject) -> KubeObject:
    """The requested or running operation; empty if there is none."""
    return resource.get("operation") or (state_of(resource).get("operation") or {} if is_running(resource) else {})


def under_way(resource: KubeObject) -> str | None:
    """The revision of the requested or running operation (empty if it has none); None if there is no operation."""
    if resource.get("operation") is None and not is_running(resource):
        return None
    return str((operation_of(resource).get("sync") or {}).get("revision") or "")


def initiator_of(operation: KubeObject) -> str:
    """The user who requested an operation; empty for an automated operation."""
    return str((operation.get("initiatedBy") or {}).get("username") or "")


def is_requested_by(resource: KubeObject, actor: str, revision: str) -> bool:
    """Return whether the requested or running operation is a sync to `revision` by `actor`."""
    return under_way(resource) == revision and initiator_of(operation_of(resource)) == actor


def is_blocked(resource: KubeObject) -> bool:
    """Return whether a sync window blocks the running operation."""
    return state_of(resource).get("phase") == "Running" and _WINDOW in (state_of(resource).get("message") or "")


def is_terminating(resource: KubeObject) -> bool:
    return state_of(resource).get("phase") == "Terminating"


def repository_of(url: str) -> str:
    """`owner/name` of a git URL, in lower case: `https://host/owner/name.git`, `git@host:owner/name`."""
    path = url.lower().removesuffix("/").removesuffix(".git").replace(":", "/")
    return "/".join(path.split("/")[-2:])


def is_running(resource: KubeObject) -> bool:
    return state_of(resource).get("phase") in ("Running", "Terminating")


def describe(application: Application | None) -> str:
    """The state, the health and the latest operation as one line, for error messages."""
    if application is None:
        return "it does not exist"
    words = [application.sync, application.health, f"last operation {application.phase or 'none'}", application.message]
    return ", ".join(word for word in words if word)


def application_of(resource: KubeObject) -> Application:
    """Parse an Application from Argo CD's JSON."""
    spec, status, state = resource["spec"], resource.get("status") or {}, state_of(resource)
    sync = status.get("sync") or {}
    sources = spec.get("sources") or [spec.get("source") or {}]
    operation, result = (state.get("operation") or {}).get("sync") or {}, state.get("syncResult") or {}
    errors = [str(c.get("message", "")) for c in status.get("conditions") or () if str(c["type"]).endswith("Error")]
    different = [r for r in status.get("resources") or () if r.get("status") == "OutOfSync"]
    return Application(
        name=resource["metadata"]["name"],
        path=next((source["path"] for source in sources if source.get("path")), None),
        automated=_is_automated(spec),
        sync=sync.get("status") or "Unknown",
        health=(status.get("health") or {}).get("status") or "Unknown",
        revisions=_revisions(sync),
        phase=state.get("phase"),
        message=state.get("message") or "; ".join(filter(None, errors)),
        operation_revision=operation.get("revision") or result.get("revision"),
        operation_revisions=_revisions(result) or _revisions(operation),
        errors=tuple(filter(None, errors)),
        out_of_sync=tuple(f"{difference.get('kind')}/{difference.get('name')}" for difference in different),
        source=source_of(spec),
        paths=tuple(_directory(source) for source in sources if source.get("path")),
        files=tuple(path for source in sources for path in _value_files(source)),
        repositories=tuple(str(source["repoURL"]) for source in sources if source.get("repoURL")),
        reverts_replicas=_is_automated(spec) and _heals(spec) and not _ignores_replicas(spec),
    )


def _directory(source: KubeObject) -> str:
    return str(source.get("path") or "").strip("/").removeprefix("./")


def _value_files(source: KubeObject) -> Iterator[str]:
    """The paths of the value files, relative to the root of the repository. Argo CD resolves a path from the source's
    directory, or from the root if the path begins with `/` or a `$ref`.
    """
    helm = source.get("helm")
    for path in (helm.get("valueFiles") if isinstance(helm, dict) else None) or ():
        text = str(path)
        is_rooted = text.startswith(("$", "/"))
        yield text.partition("/")[2] if is_rooted else posixpath.normpath(posixpath.join(_directory(source), text))


def _heals(spec: KubeObject) -> bool:
    return bool(((spec.get("syncPolicy") or {}).get("automated") or {}).get("selfHeal"))


def _ignores_replicas(spec: KubeObject) -> bool:
    """Return whether Argo CD ignores differences in a Deployment's replicas, so self-healing does not change them."""
    for rule in spec.get("ignoreDifferences") or ():
        pointers, queries = rule.get("jsonPointers") or (), rule.get("jqPathExpressions") or ()
        if rule.get("kind") in ("Deployment", "*") and ("/spec/replicas" in pointers or ".spec.replicas" in queries):
            return True
    return False


def _revisions(sync: KubeObject) -> tuple[str, ...]:
    """One revision per source. Argo CD reports `revisions` for several sources, and `revision` for a single source."""
    return tuple(sync.get("revisions") or filter(None, [sync.get("revision")]))


def _is_automated(spec: KubeObject) -> bool:
    """Return whether syncs are automated: true for `automated: {}`, false for null and for `{enabled: false}`."""
    automated = (spec.get("syncPolicy") or {}).get("automated")
    return automated is not None and automated.get("enabled") is not False


def revisions_at(sources: Sequence[KubeObject], repository: str, revision: str) -> list[str] | None:
    """The revision of each source, with `revision` for the platform repo; None if the platform repo is not a source.

    Charts and other repositories keep their own revision. A single git source always counts as the platform repo,
    because its URL may be that of a mirror.
    """
    in_git = [
        source for source in sources if not source.get("chart") and not str(source.get("repoURL")).startswith("oci://")
    ]
    platform_sources = [source for source in in_git if repository_of(str(source.get("repoURL"))) == repository.lower()]
    if not platform_sources and len(in_git) > 1:
        return None
    at_commit = platform_sources or in_git
    return [revision if source in at_commit else str(source.get("targetRevision") or "") for source in sources]
