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
        "Argo CD does not deploy files that are not listed",
        "add the file to `resources`",
    ),
    "gpu-limit": Rule(
        "the limits of an engine on a GPU node have as many GPUs as it uses, and its requests have none or the same number",
        "it occupies GPUs that it does not use, or Kubernetes refuses the pod",
        "write `nvidia.com/gpu: 1` into its limits",
    ),
    "container-port": Rule(
        "the engine listens on a port of its container (`--port`; 8000 by default for vLLM)",
        "probes and the Service cannot connect",
        "write the engine's port",
    ),
    "weights-path": Rule(
        "`HF_HOME` of engine and initContainer is the path at which the claim is mounted",
        "the engine does not find the staged weights, or they are lost with the pod",
        "mount the claim there",
    ),
    "resources": Rule(
        "requests are valid quantities and not above their limits, and the memory limit is enough for the weights",
        "Kubernetes refuses the pod, or kills it while it loads",
        "raise the limit",
    ),
    "probe": Rule(
        "probes use a port of the container and a path that the engine answers without a key, and wait until it has loaded",
        "the pod never becomes ready, or is killed while it loads",
        "use `/health` on the container's port",
    ),
    "toleration": Rule(
        "a GPU model has the tolerations and node selectors that the other GPU models have",
        "its pod stays Pending",
        "copy them from another model",
    ),
    "image-tag": Rule(
        "each tag of an image has the same digest everywhere, and each digest the same tag",
        "one of the containers runs a version that differs from its tag",
        "write the same tag and digest",
    ),
    "secret-missing": Rule(
        "a `secretKeyRef` names a Secret and a key that the repository defines, or that the other models use",
        "the pod waits with CreateContainerConfigError",
        "name a Secret that exists",
    ),
    "staging-offline": Rule(
        "the container that downloads the weights is not offline",
        "an empty volume stays empty, and the pod never starts",
        "remove `HF_HUB_OFFLINE` there",
    ),
    "variable": Rule(
        "a container's variables have the names that the engine reads, and none is set twice",
        "the setting has no effect: the engine has no key, or no offline mode",
        "correct the variable's name",
    ),
    "read-only-root": Rule(
        "if the root file system is read-only, or the user is not root, the engine's directories are writable",
        "the engine or the staging ends with a permission error",
        "point the variable to a mounted directory, or set `fsGroup`",
    ),
    "volume-mount": Rule(
        "each `volumeMounts` entry names a volume of the pod",
        "Kubernetes refuses the pod",
        "name a volume that exists",
    ),
    "volume-size": Rule(
        "the volume is large enough for the weights, whose size is estimated from the model's name",
        "staging fails when the disk is full",
        "request more storage",
    ),
    "claim-shared": Rule(
        "each model has its own ReadWriteOnce volume",
        "one of the pods waits for the volume, or both fill it",
        "give it its own claim",
    ),
    "service-missing": Rule("the endpoint has a Service", "LiteLLM cannot reach it", "add service.yaml"),
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
        "a GPU model has `replicas: 0` in git",
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
        "a tag may be moved, and the next pull gets another engine",
        "append the digest of the tag",
    ),
    "checkov-skip": Rule(
        "the template's exceptions for the security scanner are kept",
        "the platform's own CI fails",
        "copy the annotation",
    ),
    "namespace": Rule(
        "`api_base` contains the namespace of the Service",
        "tenants cannot reach the model",
        "write the same namespace in both places",
    ),
    "admission": Rule(
        "no name, path or port of a pod appears twice, and its settings do not exclude each other",
        "Kubernetes refuses the object",
        "keep one of the two",
    ),
    "shared-memory": Rule(
        "an engine with tensor parallelism has a volume in memory at `/dev/shm`",
        "its processes fail while they load, or wait for each other forever",
        "mount an emptyDir with `medium: Memory` there",
        "warning",
    ),
    "host-access": Rule(
        "a pod that does not run as root uses no namespace of its node (`hostIPC`, `hostNetwork`, `hostPID`)",
        "the engine has access to the node's processes and ports",
        "remove the field",
        "warning",
    ),
    "grace-period": Rule(
        "an engine has time to finish its requests (`terminationGracePeriodSeconds`)",
        "running requests fail, and the next pod waits for the volume",
        "write 30, or remove the field",
        "warning",
    ),
    "image-pull-policy": Rule(
        "an image that is pinned by its digest is not pulled again (`imagePullPolicy: Always`)",
        "each start waits for the registry, and fails if the registry does not answer",
        "write IfNotPresent: `/model tune NAME`",
        "warning",
        advice=True,
    ),
}
