"""The rules of the objects that declare an endpoint, in any form."""

from manifests.rules.rule import Rule

RULES = {
    "staged-model": Rule(
        "the initContainer stages the model that the engine's `--model` names",
        "the engine runs offline and does not find its weights",
        "name the same model in both places",
    ),
    "pod-selector": Rule(
        "the Deployment's selector matches the labels of its pod template",
        "Kubernetes refuses the Deployment",
        "give selector and template the same labels",
    ),
    "service-selector": Rule(
        "the Service's selector matches the pod's labels",
        "the Service has no endpoints and every call fails",
        "select a label of the pod",
    ),
    "kustomization": Rule(
        "the endpoint's kustomization lists each of its files",
        "Argo CD does not deploy what is not listed",
        "add the file to `resources`",
    ),
    "gpu-limit": Rule(
        "an engine on a GPU node has as many GPUs in its limits as it uses, and requests none or as many",
        "it holds GPUs that it does not use, or Kubernetes refuses the pod",
        "write `nvidia.com/gpu: 1` into its limits",
    ),
    "container-port": Rule(
        "the engine listens on a port of its container (`--port`, for vLLM 8000 without it)",
        "probes and the Service find nobody",
        "write the engine's port",
    ),
    "weights-path": Rule(
        "`HF_HOME` of engine and initContainer is where the claim is mounted",
        "weights are staged where the engine does not look, or are lost with the pod",
        "mount the claim there",
    ),
    "resources": Rule(
        "requests are not above their limits, and the memory limit holds the weights",
        "Kubernetes refuses the pod, or kills it while it loads",
        "raise the limit",
    ),
    "probe": Rule(
        "probes ask a port of the container, a path that the engine answers without a key, and wait until it has loaded",
        "the pod never gets ready, or is killed while it loads",
        "ask `/health` on the container's port",
    ),
    "toleration": Rule(
        "a GPU model has the tolerations and node selectors that the other GPU models have",
        "its pod stays Pending",
        "copy them from another model",
    ),
    "image-tag": Rule(
        "one tag of an image has one digest everywhere, and the reverse",
        "one of the containers runs another version than it says",
        "write the same tag and digest",
    ),
    "secret-missing": Rule(
        "a `secretKeyRef` names a Secret and a key that the repository makes, or that the other models name",
        "the pod waits with CreateContainerConfigError",
        "name the Secret that is there",
    ),
    "staging-offline": Rule(
        "the container that downloads the weights is not offline",
        "an empty volume stays empty, and the pod never starts",
        "remove `HF_HUB_OFFLINE` there",
    ),
    "variable": Rule(
        "a container's variables are spelled as the engine reads them, and none stands twice",
        "the setting has no effect: an engine without its key, or without its offline mode",
        "write the variable's name",
    ),
    "read-only-root": Rule(
        "where the root file system is read-only, or the user is not root, the engine's directories can be written to",
        "the engine or the staging ends with a permission error",
        "point the variable to a mounted directory, or set `fsGroup`",
    ),
    "volume-mount": Rule(
        "each `volumeMounts` entry names a volume of the pod",
        "Kubernetes refuses the pod",
        "name a volume that is there",
    ),
    "volume-size": Rule(
        "the volume holds the weights, by the size that the model's name tells",
        "staging fails when the disk is full",
        "request more storage",
    ),
    "claim-shared": Rule(
        "each model has a ReadWriteOnce volume of its own",
        "one of the pods waits for the volume, or both fill it",
        "give it a claim of its own",
    ),
    "service-missing": Rule("the endpoint has a Service", "LiteLLM reaches nothing", "add service.yaml"),
    "target-port": Rule(
        "the Service's `targetPort` is a port of the engine's container",
        "connections to the Service are refused",
        "name the container's port",
    ),
    "claim": Rule(
        "the Deployment's `claimName` is the name of the endpoint's PersistentVolumeClaim",
        "the pod waits for a volume forever",
        "name the claim of pvc.yaml",
    ),
    "replicas": Rule(
        "a GPU model rests at `replicas: 0`",
        "every sync starts the GPU without an approval",
        "write `replicas: 0`",
    ),
    "strategy": Rule(
        "a GPU model's strategy is `Recreate`",
        "a rolling update waits for a second GPU forever",
        "write `strategy.type: Recreate`",
    ),
    "image-digest": Rule(
        "every image is pinned with `@sha256:…`",
        "a tag may be moved, and the next pull brings another engine",
        "append the digest of the tag",
    ),
    "checkov-skip": Rule(
        "exceptions for the security scanner that the template carries are kept",
        "the platform's own CI turns red",
        "copy the annotation",
    ),
    "namespace": Rule(
        "`api_base` names the namespace that the Service is in",
        "tenants reach nothing",
        "write the same namespace in both places",
    ),
    "image-pull-policy": Rule(
        "an image that is pinned by its digest is not pulled again (`imagePullPolicy: Always`)",
        "each start waits for the registry, and fails when that is away",
        "write IfNotPresent: `/model tune NAME`",
        "warning",
        advice=True,
    ),
}
