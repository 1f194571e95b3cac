"""KServe's controller for services that become Deployments: InferenceServices in raw mode, and LLMInferenceServices.

Sources in kserve/kserve:

- pkg/controller/v1beta1/inferenceservice/reconcilers/deployment/deployment_reconciler.go: an autoscaler's replicas are
  kept; with `autoscalerClass: external` or `none` they are `minReplicas`
- …/hpa/hpa_reconciler.go: at least one replica, so `minReplicas: 0` does not stop a model (issue 3514)
- the annotation `serving.kserve.io/stop`
- pkg/controller/v1alpha2/llmisvc: an update replaces the whole Deployment
"""

import json
from collections.abc import Mapping
from typing import Any

from sandbox.objects import Object, ObjectStore, copied

_SERVERLESS = ("Serverless", "Knative", "ModelMesh")
_STOP = "serving.kserve.io/stop"
_SCALER = "serving.kserve.io/autoscalerClass"
_UNSCALED = ("external", "none")
_NOT_PASSED_ON = ("kubectl.kubernetes.io/last-applied-configuration", "argocd.argoproj.io/tracking-id", _STOP)


class KServe:
    """Creates, updates and removes the Deployments and Services of KServe's services in `store`."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store

    def control(self) -> None:
        """Reconcile all services once."""
        services = (*self._store.find("InferenceService"), *self._store.find("LLMInferenceService"))
        expected = {name for service in services if (name := self._reconcile(service))}
        for kind in ("Deployment", "Service") if services or self._owns_deployments() else ():
            for owned in self._store.stored(kind):
                meta = owned["metadata"]
                if _is_owned(owned) and (meta["namespace"], meta["name"]) not in expected:
                    service_owner = (meta["namespace"], meta["name"].removesuffix("-workload-svc"))
                    if service_owner not in expected:
                        self._store.remove(kind, meta["name"], meta["namespace"])

    def _owns_deployments(self) -> bool:
        return any(_is_owned(owned) for owned in self._store.stored("Deployment"))

    def _reconcile(self, service: Object) -> tuple[str, str] | None:
        """Create or update the objects of a service; returns the Deployment's namespace and name, or None if there is none."""
        meta, notes = service["metadata"], service["metadata"].get("annotations") or {}
        of_llm = service["kind"] == "LLMInferenceService"
        if notes.get(_STOP) == "true":
            self._set_status(service, ready=False, reason="Stopped", message="the service is stopped")
            return None
        if not of_llm and notes.get("serving.kserve.io/deploymentMode") in _SERVERLESS:
            self._set_status(service, ready=False, reason="RevisionMissing", message="Knative Serving is not installed")
            return None
        try:
            manifests = _llm(service) if of_llm else _predictor(service)
        except (LookupError, TypeError, AttributeError) as error:
            self._set_status(
                service, ready=False, reason="InvalidSpec", message=f"failed to create the pod spec: {error}"
            )
            return None
        deployment, exposed = manifests
        name, namespace = deployment["metadata"]["name"], meta["namespace"]
        for manifest in manifests:
            manifest["metadata"] |= {"namespace": namespace, "ownerReferences": [_owner(service)]}
        if self._store.get("Service", exposed["metadata"]["name"], namespace) is None:
            self._store.create(exposed)
        live = self._store.get("Deployment", name, namespace)
        if live is None:
            self._store.create(copied(deployment))
        else:
            self._update(deployment, live, whole=of_llm)
        now = self._store.get("Deployment", name, namespace) or deployment
        ready = int((now.get("status") or {}).get("readyReplicas") or 0)
        replicas = int(now["spec"].get("replicas", 1))
        is_up = ready >= replicas
        reason = "" if is_up else "MinimumReplicasUnavailable"
        self._set_status(
            service, ready=is_up, reason=reason, message="" if is_up else f"{ready} of {replicas} pods are ready"
        )
        return namespace, name

    def _update(self, desired: Object, live: Object, *, whole: bool) -> None:
        """Update a Deployment from its service; `whole` replaces it, including its annotations."""
        spec, now = dict(desired["spec"]), live["spec"]
        if not whole and (desired["metadata"].get("annotations") or {}).get(_SCALER) not in _UNSCALED:
            least = spec.pop("replicas")
            replicas = int(now.get("replicas", 1))
            spec["replicas"] = max(replicas, least) if replicas else 0  # the autoscaler does nothing at zero
        if _is_same({key: now.get(key) for key in spec}, spec):
            return

        def change(live_object: Object) -> None:
            live_object["spec"] |= copied(spec)
            if whole:
                live_object["metadata"]["annotations"] = dict(desired["metadata"].get("annotations") or {})

        self._store.update("Deployment", desired["metadata"]["name"], desired["metadata"]["namespace"], change)

    def _set_status(self, service: Object, *, ready: bool, reason: str, message: str) -> None:
        meta = service["metadata"]
        explanation = {"reason": reason, "message": message} if reason else {}
        first = "WorkloadsReady" if service["kind"] == "LLMInferenceService" else "PredictorReady"
        status = {"status": "True" if ready else "False", **explanation}
        stopped = {"type": "Stopped", "status": "True" if reason == "Stopped" else "False"}
        conditions = [{"type": first, **status}, {"type": "Ready", **status}, stopped]
        status_object = {"observedGeneration": meta["generation"], "conditions": conditions}
        if service.get("status") != status_object:
            self._store.update(
                service["kind"], meta["name"], meta["namespace"], lambda live: live.update(status=status_object)
            )


def _predictor(service: Object) -> tuple[Object, Object]:
    """Return the Deployment and the Service of an InferenceService in raw mode."""
    meta, predictor = service["metadata"], service["spec"]["predictor"]
    name = f"{meta['name']}-predictor"
    model = predictor.get("model")
    pod = {key: value for key, value in predictor.items() if key in ("volumes", "nodeSelector", "tolerations")}
    if model:
        pod["containers"] = [_served_model(meta["name"], model)]
        if model.get("storageUri"):
            pod["initContainers"] = [_initializer(str(model["storageUri"]))]
    else:
        pod["containers"] = copied(predictor["containers"])
    notes = {key: text for key, text in (meta.get("annotations") or {}).items() if key not in _NOT_PASSED_ON}
    labels = {"app": f"isvc.{name}", "serving.kserve.io/inferenceservice": meta["name"], "component": "predictor"}
    least = int(predictor.get("minReplicas", 1))
    replicas = least if notes.get(_SCALER) in _UNSCALED else max(1, least)
    deployment = _deployment(name, labels | (meta.get("labels") or {}), {"app": labels["app"]}, pod, replicas, notes)
    return deployment, _service(name, {"app": labels["app"]}, 80, 8080)


def _served_model(name: str, model: Object) -> Object:
    """Return the container of a ServingRuntime, whose arguments come before those of the model."""
    form = str((model.get("modelFormat") or {}).get("name", "")).lower()
    of_vllm = "vllm" in f"{form} {model.get('runtime', '')}".lower()
    args = ["--port=8080", f"--served-model-name={name}"] if of_vllm else [f"--model_name={name}"]
    if model.get("storageUri"):
        args.append("--model=/mnt/models" if of_vllm else "--model_dir=/mnt/models")
    program = ["python", "-m", "vllm.entrypoints.openai.api_server" if of_vllm else "huggingfaceserver"]
    overrides = {key: copied(model[key]) for key in ("env", "resources", "image") if model.get(key)}
    image = "docker.io/vllm/vllm-openai:v0.11.0" if of_vllm else "docker.io/kserve/huggingfaceserver:v0.16.0-gpu"
    container = {"name": "kserve-container", "image": image, "command": program, **overrides}
    return container | {"args": [*args, *map(str, model.get("args") or ())]}


def _llm(service: Object) -> tuple[Object, Object]:
    """Return the Deployment and the Service of an LLMInferenceService on one node."""
    meta, spec = service["metadata"], service["spec"]
    name, model = f"{meta['name']}-kserve", spec["model"]
    pod: Object = copied(spec.get("template") or {})
    containers = pod.get("containers") or [{}]
    served = ["--served-model-name", str(model.get("name") or meta["name"]), "--port", "8000"]
    usual = {
        "name": "main",
        "image": "ghcr.io/llm-d/llm-d-cuda:v0.4.0",
        "command": ["vllm", "serve", "/mnt/models"],
        "args": served,
    }
    container = containers[0]
    pod["containers"] = [{**usual, **container, "args": container.get("args") or served}, *containers[1:]]
    pod["initContainers"] = [*(pod.get("initContainers") or ()), _initializer(str(model["uri"]))]
    labels = {"app.kubernetes.io/name": meta["name"], "app.kubernetes.io/part-of": "llminferenceservice"}
    idle = ((spec.get("scaling") or {}).get("keda") or {}).get(
        "idleReplicaCount"
    )  # nothing in the sandbox scales it up from this number
    deployment = _deployment(name, labels, labels, pod, int(spec.get("replicas", 1) if idle is None else idle), {})
    return deployment, _service(f"{name}-workload-svc", labels, 8000, 8000)


def _initializer(uri: str) -> Object:
    return {"name": "storage-initializer", "image": "kserve/storage-initializer:v0.16.0", "args": [uri, "/mnt/models"]}


def _deployment(
    name: str, labels: Mapping[str, str], selector: Mapping[str, str], pod: Object, replicas: int, notes: Object
) -> Object:
    spec = {
        "replicas": replicas,
        "selector": {"matchLabels": dict(selector)},
        "template": {"metadata": {"labels": dict(labels)}, "spec": pod},
    }
    meta = {"name": name, "labels": dict(labels), "annotations": dict(notes)}
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": meta, "spec": spec}


def _service(name: str, selector: Mapping[str, str], port: int, target: int) -> Object:
    spec = {"selector": dict(selector), "ports": [{"name": "http", "port": port, "targetPort": target}]}
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": spec}


def _owner(service: Object) -> Object:
    return {
        "apiVersion": service["apiVersion"],
        "kind": service["kind"],
        "name": service["metadata"]["name"],
        "uid": service["metadata"].get("uid", ""),
        "controller": True,
    }


def _is_owned(owned: Object) -> bool:
    owners = owned["metadata"].get("ownerReferences") or ()
    return any(owner.get("kind") in ("InferenceService", "LLMInferenceService") for owner in owners)


def _is_same(first: Any, second: Any) -> bool:
    return json.dumps(first, sort_keys=True, default=str) == json.dumps(second, sort_keys=True, default=str)
