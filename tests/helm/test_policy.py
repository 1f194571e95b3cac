"""The chart's admission policy: the bot's own changes are allowed, and all other changes by its account are denied."""

import asyncio
from collections.abc import AsyncIterator, Callable
from copy import deepcopy
from dataclasses import replace

import pytest

from bot.clients.argocd import ArgoCD
from bot.clients.cluster import Cluster
from bot.clients.deployer import SyncFailed
from bot.clients.flux import Flux
from bot.clients.job import Jobs, Load
from bot.clients.whereabouts import Whereabouts
from bot.settings.config import Config
from tests.clients.kube import Wire, application, caching, connected, deployment, time_passes, wait_until
from tests.clients.test_staging_job import staging_job
from tests.helm.chart import BENCH, MEASURING, MINIMAL, Object, of_kind, render
from tests.helm.policy import Policy, Review

pytest.importorskip("helm_python", reason="Helm's library has wheels for Linux on x86-64 alone")
pytest.importorskip("cel_expr_python", reason="CEL's library is installed for Linux on x86-64 alone")

CONFIG = Config.model_validate(MEASURING["config"])
GROUPS = {
    "Deployment": ("apps", "deployments"),
    "Application": ("argoproj.io", "applications"),
    "GitRepository": ("source.toolkit.fluxcd.io", "gitrepositories"),
    "Job": ("batch", "jobs"),
    "Kustomization": ("kustomize.toolkit.fluxcd.io", "kustomizations"),
}


@pytest.fixture(scope="module")
def policy() -> Policy:
    return Policy(MEASURING)


@pytest.fixture
async def wire() -> AsyncIterator[Wire]:
    async with Wire() as wire:
        wire.store.create(caching(deployment()))
        wire.store.create(application())
        yield wire


def changes(wire: Wire, since: int) -> list[Review]:
    """Every write that reached the API server, as an admission plugin receives it."""
    reviews = []
    for change in wire.store.since(since):
        group, resource = GROUPS[change.resource.kind]
        operation = "CREATE" if change.before is None else "UPDATE" if change.after else "DELETE"
        name = (change.after or change.before or {})["metadata"]["name"]
        reviews.append(
            Review(operation=operation, group=group, resource=resource, name=name, new=change.after, old=change.before)
        )
    return reviews


async def test_the_changes_of_the_bot_are_allowed(wire: Wire, policy: Policy) -> None:
    """Its clients scale, write a lease, refresh, sync, end a sync, and run a benchmark."""
    began = wire.store.version
    async with connected(wire) as api:
        cluster, argocd, jobs = (
            Cluster(api, "serving"),
            ArgoCD(api, "argocd", "acme/llm-platform"),
            Jobs(api, Whereabouts("serving")),
        )
        await cluster.scale("coder-chat", 1, lease="op-1/7", fence=7)
        await cluster.mark("coder-chat", "op-1/8", 8)
        await cluster.scale("coder-chat", 0, lease=None, fence=8)
        await argocd.refresh("coder-chat")
        syncing = asyncio.create_task(argocd.sync("coder-chat", "b" * 40, actor="U0DEV", timeout=30))
        await wait_until(lambda: wire.count_requests("GET", "watch=true"))
        time_passes(30)
        with pytest.raises(SyncFailed):
            await syncing
        load = Load(model="coder-chat", target="http://m:8000", served_name="m", tokenizer="acme/m", chat=True)
        await jobs.start("0123456789", load, CONFIG.bench, CONFIG.vllm.api_key)
        await jobs.delete("0123456789")
    reviews = changes(wire, began)
    kinds = {(review.operation, review.resource) for review in reviews}
    assert kinds == {
        ("UPDATE", "deployments"),
        ("UPDATE", "applications"),
        ("CREATE", "jobs"),
        ("DELETE", "jobs"),
    }
    assert any("operation" in (review.new or {}) for review in reviews)
    assert [policy.denies(review) for review in reviews if policy.denies(review)] == []


async def _all_include(later: str, earlier: str) -> bool:
    return True


WITH_FLUX = MEASURING | {"config": MEASURING["config"] | {"flux": {"namespace": "flux-system"}}}


async def test_a_reconciliation_of_flux_is_allowed(wire: Wire, policy: Policy) -> None:
    """Only the annotation that requests it is allowed; without `flux.namespace` nothing is allowed."""
    wire.store.create({"kind": "GitRepository", "metadata": {"name": "ops", "namespace": "flux-system"}, "spec": {}})
    source = {"kind": "GitRepository", "name": "ops"}
    applied = {"name": "apps", "namespace": "flux-system"}
    wire.store.create({"kind": "Kustomization", "metadata": applied, "spec": {"path": "./apps", "sourceRef": source}})
    began = wire.store.version
    async with connected(wire) as api:
        await Flux(api, "flux-system", ("serving",), _all_include).refresh("apps")
    reviews = changes(wire, began)
    with_flux = Policy(WITH_FLUX)
    assert {review.resource for review in reviews} == {"gitrepositories", "kustomizations"}
    for review in reviews:
        assert with_flux.denies(review) == []
        assert any("and nothing else" in denial for denial in policy.denies(review))
        changed = deepcopy(review.new) or {}
        changed["spec"]["suspend"] = True
        assert any(
            "requestedAt and nothing else" in denial for denial in with_flux.denies(replace(review, new=changed))
        )
        named = deepcopy(review.new) or {}
        named["metadata"]["annotations"]["team"] = "b"
        assert any("requestedAt and nothing else" in denial for denial in with_flux.denies(replace(review, new=named)))


def scale(replicas: int) -> Review:
    new = {"kind": "Scale", "metadata": {"name": "a"}, "spec": {"replicas": replicas} if replicas else {}}
    old = {"kind": "Scale", "metadata": {"name": "a"}, "spec": {}}
    return Review(
        operation="UPDATE", group="apps", resource="deployments", subresource="scale", name="a", new=new, old=old
    )


def test_the_replicas_are_bounded(policy: Policy) -> None:
    """The bot may set 0 or 1 by default; a value raises the limit."""
    assert policy.denies(scale(0)) == policy.denies(scale(1)) == []
    assert "at most 1" in " ".join(policy.denies(scale(2)))
    assert Policy(MEASURING | {"admissionPolicy": {"maxReplicas": 2}}).denies(scale(2)) == []


def of_deployment(change: Callable[[Object], object]) -> Review:
    old = caching(deployment())
    old["metadata"] |= {"annotations": {"team": "a", "stoker.dev/fence": "7"}, "generation": 1, "resourceVersion": "1"}
    old["spec"]["strategy"] = {"type": "Recreate"}
    new = deepcopy(old)
    change(new)
    return Review(operation="UPDATE", group="apps", resource="deployments", name="coder-chat", new=new, old=old)


RUNNING = {"phase": "Running", "message": "waiting", "operation": {"sync": {"revision": "a"}}}


def of_application(change: Callable[[Object], object]) -> Review:
    old = application(operationState=dict(RUNNING))
    old["metadata"] |= {"annotations": {"team": "a"}, "labels": {"group": "x"}, "generation": 1, "resourceVersion": "1"}
    new = deepcopy(old)
    change(new)
    return Review(operation="UPDATE", group="argoproj.io", resource="applications", name="coder-chat", new=new, old=old)


def container(of: Object) -> Object:
    first: Object = of["spec"]["template"]["spec"]["containers"][0]
    return first


def sync(**fields: object) -> Callable[[Object], object]:
    return lambda o: o.update(operation={"initiatedBy": {"username": "U0DEV"}, "sync": {"revision": "b"} | fields})


ALLOWED = {
    "its annotation": of_deployment(lambda o: o["metadata"]["annotations"].update({"stoker.dev/lease": "x"})),
    "its annotation removed": of_deployment(lambda o: o["metadata"]["annotations"].pop("stoker.dev/fence")),
    "the first annotation": of_deployment(lambda o: o["metadata"].update(resourceVersion="2", managedFields=[{}])),
    "replicas": of_deployment(lambda o: o["spec"].update(replicas=1)),
    "refresh": of_application(lambda o: o["metadata"]["annotations"].update({"argocd.argoproj.io/refresh": "normal"})),
    "a sync": of_application(sync(revisions=["b"], syncOptions=["RespectIgnoreDifferences=true"])),
    "a sync of one object": of_application(sync(resources=[{"group": "apps", "kind": "Deployment", "name": "chat"}])),
    "terminate": of_application(lambda o: o["status"]["operationState"].update(phase="Terminating")),
}


@pytest.mark.parametrize("review", ALLOWED.values(), ids=ALLOWED.keys())
def test_each_field_that_the_bot_changes_may_change(policy: Policy, review: Review) -> None:
    """This includes changes together with the fields that the server itself writes."""
    assert policy.denies(review) == []


DENIED = {
    "the image": (of_deployment(lambda o: container(o).update(image="evil")), "the replicas and nothing else"),
    "the account of the pod": (
        of_deployment(lambda o: o["spec"]["template"]["spec"].update(serviceAccountName="admin")),
        "the replicas and nothing else",
    ),
    "an annotation of the pod": (
        of_deployment(lambda o: o["spec"]["template"]["metadata"].update(annotations={"a": "b"})),
        "the replicas and nothing else",
    ),
    "the strategy": (of_deployment(lambda o: o["spec"].pop("strategy")), "the replicas and nothing else"),
    "a new field": (of_deployment(lambda o: o["spec"].update(paused=True)), "the replicas and nothing else"),
    "two replicas": (of_deployment(lambda o: o["spec"].update(replicas=2)), "at most 1"),
    "another annotation": (of_deployment(lambda o: o["metadata"]["annotations"].update(team="b")), "stoker.dev/*"),
    "another's annotation removed": (of_deployment(lambda o: o["metadata"]["annotations"].pop("team")), "stoker.dev/*"),
    "all annotations removed": (of_deployment(lambda o: o["metadata"].pop("annotations")), "stoker.dev/*"),
    "a look-alike": (
        of_deployment(lambda o: o["metadata"]["annotations"].update({"stoker.dev.evil/x": "b"})),
        "stoker.dev/*",
    ),
    "a label": (of_deployment(lambda o: o["metadata"]["labels"].update(a="b")), "annotations and nothing else"),
    "a finalizer": (of_deployment(lambda o: o["metadata"].update(finalizers=["x/y"])), "annotations and nothing else"),
    "an owner": (
        of_deployment(lambda o: o["metadata"].update(ownerReferences=[{"kind": "Pod"}])),
        "annotations and nothing else",
    ),
    "the source": (of_application(lambda o: o["spec"]["source"].update(repoURL="https://evil")), "nothing of its spec"),
    "automated syncs": (of_application(lambda o: o["spec"]["syncPolicy"].update(automated={})), "nothing of its spec"),
    "the refresh of another": (
        of_application(lambda o: o["metadata"]["annotations"].update({"argocd.argoproj.io/x": "normal"})),
        "argocd.argoproj.io/refresh",
    ),
    "the group": (of_application(lambda o: o["metadata"].pop("labels")), "annotations and nothing else"),
    "manifests of its own": (of_application(sync(manifests=["kind: Pod"])), "not for other sources or manifests"),
    "another source": (of_application(sync(source={"repoURL": "https://evil"})), "not for other sources"),
    "other sources": (of_application(sync(sources=[{"repoURL": "https://evil"}])), "not for other sources"),
    "an option": (of_application(sync(syncOptions=["Replace=true"])), "the Application's own options"),
    "pruning": (of_application(sync(prune=True)), "not for other sources"),
    "retries": (of_application(lambda o: o.update(operation={"sync": {}, "retry": {"limit": -1}})), "not for other"),
    "a phase": (of_application(lambda o: o["status"]["operationState"].update(phase="Succeeded")), "Terminating"),
    "a message": (of_application(lambda o: o["status"]["operationState"].update(message="fine")), "Terminating"),
    "the sync status": (of_application(lambda o: o["status"]["sync"].update(status="Synced")), "Terminating"),
    "the health": (of_application(lambda o: o["status"].pop("health")), "Terminating"),
    "no status": (of_application(lambda o: o.pop("status")), "Terminating"),
}


@pytest.mark.parametrize(("review", "message"), DENIED.values(), ids=DENIED.keys())
def test_other_fields_may_not_change(policy: Policy, review: Review, message: str) -> None:
    """The message names the rule, and the policy applies only to the bot's account."""
    messages = policy.denies(review)
    assert any(message in denial for denial in messages), messages
    assert not any("Key not found" in denial or "ERROR" in denial for denial in messages), messages
    assert not policy.concerns(Review(**(vars(review) | {"user": "system:serviceaccount:argocd:argocd"})))


def review_of(operation: str, group: str, resource: str, subresource: str = "", name: str = "x") -> Review:
    some = {"metadata": {"name": name}, "spec": {}}
    new, old = (None if operation == "DELETE" else some), (None if operation == "CREATE" else some)
    return Review(
        operation=operation, group=group, resource=resource, subresource=subresource, name=name, new=new, old=old
    )


@pytest.mark.parametrize(
    "review",
    [
        review_of("CREATE", "", "pods"),
        review_of("CREATE", "apps", "deployments"),
        review_of("DELETE", "apps", "deployments"),
        review_of("UPDATE", "apps", "deployments", "status"),
        review_of("UPDATE", "apps", "statefulsets", "scale"),
        review_of("CREATE", "argoproj.io", "applications"),
        review_of("DELETE", "argoproj.io", "applications"),
        review_of("UPDATE", "batch", "jobs"),
        review_of("UPDATE", "", "secrets"),
        review_of("CREATE", "rbac.authorization.k8s.io", "rolebindings"),
        review_of("CONNECT", "", "pods", "exec"),
        review_of("CREATE", "", "pods", "eviction"),
        review_of("CREATE", "", "serviceaccounts", "token"),
        review_of("CREATE", "authorization.k8s.io", "subjectaccessreviews"),
    ],
    ids=lambda review: f"{review.operation} {review.resource}/{review.subresource}",
)
def test_nothing_else_may_change(policy: Policy, review: Review) -> None:
    """The policy denies it even if somebody grants the account additional rights."""
    assert any("and nothing else" in denial for denial in policy.denies(review))


def test_the_bot_may_review_its_own_rights(policy: Policy) -> None:
    """The check at its start creates SelfSubjectAccessReviews."""
    review = review_of("CREATE", "authorization.k8s.io", "selfsubjectaccessreviews", name="")
    assert policy.denies(review) == []


async def job(wire: Wire) -> Object:
    """The Job that the bot creates for a benchmark."""
    async with connected(wire) as api:
        load = Load(model="coder-chat", target="http://m:8000", served_name="m", tokenizer="acme/m", chat=True)
        await Jobs(api, Whereabouts("serving")).start("0123456789", load, CONFIG.bench, CONFIG.vllm.api_key)
    (created,) = wire.store.find("Job", "serving")
    return created


JOBS: dict[str, tuple[Callable[[Object], object], str]] = {
    "its name": (lambda o: o["metadata"].update(name="evil"), "begins with stoker-"),
    "no name": (lambda o: o["metadata"].pop("name"), "begins with stoker-"),
    "an image": (lambda o: container(o).update(image="evil"), "runs an image"),
    "an init container's image": (
        lambda o: o["spec"]["template"]["spec"]["initContainers"][0].update(image="evil"),
        "runs an image",
    ),
    "a token": (lambda o: o["spec"]["template"]["spec"].pop("automountServiceAccountToken"), "no ServiceAccount token"),
    "a projected token": (
        lambda o: o["spec"]["template"]["spec"]["volumes"].append({"name": "t", "projected": {"sources": []}}),
        "only volumes of",
    ),
    "the node's files": (
        lambda o: o["spec"]["template"]["spec"]["volumes"].append({"name": "h", "hostPath": {"path": "/"}}),
        "only volumes of",
    ),
    "the node's network": (lambda o: o["spec"]["template"]["spec"].update(hostNetwork=True), "no access to its node"),
    "the node's processes": (lambda o: o["spec"]["template"]["spec"].update(hostPID=True), "no access to its node"),
    "privileged": (lambda o: container(o)["securityContext"].update(privileged=True), "not privileged"),
    "capabilities": (
        lambda o: container(o)["securityContext"].update(capabilities={"add": ["SYS_ADMIN"]}),
        "gets no capabilities",
    ),
}


@pytest.mark.parametrize(("change", "message"), JOBS.values(), ids=JOBS.keys())
async def test_a_job_must_be_one_of_the_bots(
    wire: Wire, policy: Policy, change: Callable[[Object], object], message: str
) -> None:
    """A Job runs a pod, so the policy also limits the pod."""
    created = await job(wire)
    review = Review(operation="CREATE", group="batch", resource="jobs", name=created["metadata"]["name"], new=created)
    assert policy.denies(review) == []
    change(created)
    messages = policy.denies(review)
    assert any(message in denial for denial in messages), messages


def test_only_the_bots_own_jobs_may_be_deleted(policy: Policy) -> None:
    """The bot cannot delete all objects of a namespace with one request."""
    assert policy.denies(review_of("DELETE", "batch", "jobs", name="stoker-bench-1")) == []
    assert policy.denies(review_of("DELETE", "batch", "jobs", name="backup"))
    assert policy.denies(review_of("DELETE", "batch", "jobs", name=""))


def test_the_images_of_jobs_are_those_of_the_settings() -> None:
    """A Job may use the images of bench, of staging and of the values, or any image if endpoints choose staging images."""
    staging_job: Object = {
        "metadata": {"name": "stoker-stage-x"},
        "spec": {"template": {"spec": {"automountServiceAccountToken": False, "containers": [{"image": "mirror/v"}]}}},
    }
    review = Review(operation="CREATE", group="batch", resource="jobs", name="stoker-stage-x", new=staging_job)

    def denied(config: Object, **policy: object) -> bool:
        values = MINIMAL | {"config": MINIMAL["config"] | config, "admissionPolicy": policy}
        return bool(Policy(values).denies(review))

    assert denied({})
    assert denied({"bench": BENCH})
    assert denied({"staging": {"mode": "on", "image": "other/v"}})
    assert not denied({"staging": {"mode": "on", "image": "mirror/v"}})
    assert not denied({}, jobImages=["mirror/v"])
    assert denied({"staging": {"mode": "on"}}, jobImages=["other/v"])
    assert not denied({"staging": {"mode": "on"}})


def test_the_policy_is_bound_and_can_be_switched_off() -> None:
    """The policy denies requests, fails closed, and can be disabled by a value."""
    objects = render(MINIMAL)
    (policy_object,), (binding,) = (
        of_kind(objects, kind) for kind in ("ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding")
    )
    assert policy_object["spec"]["failurePolicy"] == "Fail"
    assert binding["spec"] == {"policyName": policy_object["metadata"]["name"], "validationActions": ["Deny"]}
    off = render(MINIMAL | {"admissionPolicy": {"enabled": False}})
    assert not [manifest for manifest in off if "AdmissionPolicy" in manifest["kind"]]


def test_a_staging_job_is_allowed() -> None:
    """It may use the endpoint's own image, account and Secret; `staging.image` limits the images."""
    job = staging_job()
    review = Review(operation="CREATE", group="batch", resource="jobs", name=job["metadata"]["name"], new=job)

    def denied(**staging: str) -> list[str]:
        values = MINIMAL | {"config": MINIMAL["config"] | {"staging": {"mode": "on"} | staging}}
        return Policy(values).denies(review)

    assert denied() == []
    assert any("runs an image" in denial for denial in denied(image="mirror/python"))


def test_a_claim_may_grow_with_staging_and_nothing_else() -> None:
    """A staged swap needs this; without staging the account can change no claim."""
    old: Object = {
        "metadata": {"name": "coder-chat-model-cache", "labels": {"a": "b"}, "resourceVersion": "7"},
        "spec": {"volumeName": "pv-1", "resources": {"requests": {"storage": "20Gi"}}},
    }

    def denied(mode: str, **changed: Object) -> list[str]:
        new = {"metadata": old["metadata"] | {"resourceVersion": "8"}, "spec": old["spec"]}
        new = {key: value | changed.get(key, {}) for key, value in new.items()}
        review = Review(operation="UPDATE", group="", resource="persistentvolumeclaims", new=new, old=old)
        return Policy(MINIMAL | {"config": MINIMAL["config"] | {"staging": {"mode": mode}}}).denies(review)

    grown: Object = {"resources": {"requests": {"storage": "40Gi"}}}
    assert denied("on", spec=grown) == []
    assert denied("off", spec=grown)
    for change in (
        {"spec": grown | {"volumeName": "pv-2"}},
        {"spec": grown | {"storageClassName": "other"}},
        {"spec": {"resources": {"requests": {"storage": "40Gi"}, "limits": {"storage": "40Gi"}}}},
        {"metadata": {"labels": {"a": "c"}}, "spec": grown},
        {"metadata": {"annotations": {"x": "y"}}, "spec": grown},
        {"metadata": {"finalizers": []}, "spec": grown},
    ):
        assert any("requested storage and nothing else" in denial for denial in denied("on", **change)), change
