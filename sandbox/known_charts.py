"""The model servers of two external charts that many clusters install.

The charts are bjw-s' app-template (`determineResourceNameFromValues` in its library) and vLLM's production-stack
(helm/templates/deployment-vllm-multi.yaml, service-engine.yaml). Other charts are not rendered.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from sandbox.objects import Object

_POD = ("runtimeClassName", "resourceClaims", "nodeSelector", "tolerations", "affinity")


def known_chart(release: str, values: Object) -> list[Object] | None:
    """Return the objects of a release; None if its values are those of another chart."""
    if any(
        isinstance(controller, Mapping) and controller.get("containers")
        for controller in (values.get("controllers") or {}).values()
    ):
        return app_template(release, values)
    if (values.get("servingEngineSpec") or {}).get("modelSpec"):
        return list(_stack(release, values))
    return None


def app_template(release: str, values: Object) -> list[Object]:
    """Return the Deployments and Services of app-template (v4), the generic chart of many home clusters."""
    every = {key: options for key, options in (values.get("controllers") or {}).items() if options.get("enabled", True)}
    controllers = {key: options for key, options in every.items() if options.get("type", "deployment") == "deployment"}
    manifests: list[Object] = []
    for key, controller in controllers.items():
        labels = {
            "app.kubernetes.io/name": release,
            "app.kubernetes.io/instance": release,
            "app.kubernetes.io/controller": key,
        }
        options = (values.get("defaultPodOptions") or {}) | (controller.get("pod") or {})
        pod: Object = {field: options[field] for field in _POD if options.get(field)}
        pod["containers"] = [
            _container(name, container) for name, container in (controller.get("containers") or {}).items()
        ]
        if controller.get("initContainers"):
            pod["initContainers"] = [
                _container(name, container) for name, container in controller["initContainers"].items()
            ]
        _mount(pod, key, values.get("persistence") or {})
        spec = {
            "replicas": controller.get("replicas", 1),
            "strategy": {"type": controller.get("strategy", "Recreate")},
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": pod},
        }
        meta = {"name": _named(release, key, len(every)), "labels": labels}
        manifests.append({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": meta, "spec": spec})
    services = {key: service for key, service in (values.get("service") or {}).items() if service.get("enabled", True)}
    for key, service in services.items():
        target = service.get("controller") or next(iter(controllers), key)
        labels = {"app.kubernetes.io/instance": release, "app.kubernetes.io/controller": target}
        ports = [{"name": port_name, "port": port["port"]} for port_name, port in (service.get("ports") or {}).items()]
        spec = {"selector": labels, "ports": ports}
        meta = {"name": _named(release, key, len(services))}
        manifests.append({"apiVersion": "v1", "kind": "Service", "metadata": meta, "spec": spec})
    return manifests


def _named(release: str, key: str, count: int) -> str:
    """Return an object's name: the release's if it is the only one of its kind or `key` is in that name; otherwise both."""
    return release if count == 1 or key == release or release.endswith(f"-{key}") else f"{release}-{key}"


def _container(name: str, options: Object) -> Object:
    image, env = options.get("image") or {}, options.get("env") or {}
    listed = env if isinstance(env, list) else [{"name": key, **_variable(value)} for key, value in env.items()]
    text = image if isinstance(image, str) else f"{image.get('repository', '')}:{image.get('tag', 'latest')}"
    container: Object = {"name": name, "image": text, "env": listed}
    words = {key: options[key] for key in ("command", "args") if options.get(key)}
    container |= {
        key: words_or_text if isinstance(words_or_text, list) else [words_or_text]
        for key, words_or_text in words.items()
    }
    return container | {key: options[key] for key in ("resources", "envFrom") if options.get(key)}


def _variable(value: Any) -> Object:
    return dict(value) if isinstance(value, Mapping) else {"value": str(value)}


def _mount(pod: Object, controller: str, persistence: Object) -> None:
    """Mount the ConfigMaps in the values; other volumes do not matter in the sandbox."""
    for key, options in persistence.items():
        if options.get("type") != "configMap" or not options.get("name"):
            continue
        pod.setdefault("volumes", []).append({"name": key, "configMap": {"name": options["name"]}})
        for container in pod["containers"]:
            own_mounts = ((options.get("advancedMounts") or {}).get(controller) or {}).get(container["name"]) or ()
            mounts = [
                {"name": key, "mountPath": mount["path"]}
                for mount in (*own_mounts, *(options.get("globalMounts") or ()))
            ]
            container["volumeMounts"] = [*container.get("volumeMounts", ()), *mounts]


def _stack(release: str, values: Object) -> Iterator[Object]:
    """Yield the Deployment and Service of each model of vLLM's production-stack, without its router."""
    engine = values["servingEngineSpec"]
    for spec in engine["modelSpec"]:
        name, config = f"{release}-{spec['name']}", spec.get("vllmConfig") or {}
        labels = {"model": spec["name"], "helm-release-name": release}
        command = ["vllm", "serve", spec["modelURL"], "--host", "0.0.0.0", "--port", "8000"]
        flags = {"maxModelLen": "--max-model-len", "tensorParallelSize": "--tensor-parallel-size", "dtype": "--dtype"}
        args = [word for key, flag in flags.items() if config.get(key) for word in (flag, str(config[key]))]
        env = [variable for variable in spec.get("env") or () if "name" in variable]
        if spec.get("vllmAPIKey"):
            env.append({"name": "VLLM_API_KEY", "valueFrom": {"secretKeyRef": {"name": "", "key": ""}}})
        container = {
            "name": "vllm",
            "image": f"{spec.get('repository', 'vllm/vllm-openai')}:{spec.get('tag', 'latest')}",
            "command": command + args + [str(argument) for argument in config.get("extraArgs") or ()],
            "env": env,
            "resources": {"limits": {spec.get("requestGPUType", "nvidia.com/gpu"): str(spec.get("requestGPU", 0))}},
            "ports": [{"name": "container-port", "containerPort": 8000}],
        }
        pod: Object = {"containers": [container]}
        if engine.get("runtimeClassName"):
            pod["runtimeClassName"] = engine["runtimeClassName"]
        yield {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {"name": f"{name}-deployment-vllm", "labels": dict(labels)},
            "spec": {
                "replicas": spec.get("replicaCount", 1),
                "selector": {"matchLabels": labels},
                "template": {"metadata": {"labels": dict(labels)}, "spec": pod},
            },
        }
        yield {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": f"{name}-engine-service"},
            "spec": {"selector": labels, "ports": [{"name": "engine-port", "port": 80, "targetPort": 8000}]},
        }
