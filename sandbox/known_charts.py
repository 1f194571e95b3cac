"""External charts that many clusters install, as far as they create model servers.

bjw-s' app-template (`determineResourceNameFromValues` in its library) and vLLM's production-stack
(helm/templates/deployment-vllm-multi.yaml, service-engine.yaml). Of other charts only the values are known.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from sandbox.objects import Object

_POD = ("runtimeClassName", "resourceClaims", "nodeSelector", "tolerations", "affinity")


def known_chart(release: str, values: Object) -> list[Object] | None:
    """The objects of a release; None if its values are those of a chart that the sandbox does not know."""
    if any(isinstance(each, Mapping) and each.get("containers") for each in (values.get("controllers") or {}).values()):
        return app_template(release, values)
    if (values.get("servingEngineSpec") or {}).get("modelSpec"):
        return list(_stack(release, values))
    return None


def app_template(release: str, values: Object) -> list[Object]:
    """The Deployments and Services of app-template (v4), the generic chart of many home clusters."""
    every = {key: said for key, said in (values.get("controllers") or {}).items() if said.get("enabled", True)}
    controllers = {key: said for key, said in every.items() if said.get("type", "deployment") == "deployment"}
    made: list[Object] = []
    for key, controller in controllers.items():
        labels = {
            "app.kubernetes.io/name": release,
            "app.kubernetes.io/instance": release,
            "app.kubernetes.io/controller": key,
        }
        options = (values.get("defaultPodOptions") or {}) | (controller.get("pod") or {})
        pod: Object = {each: options[each] for each in _POD if options.get(each)}
        pod["containers"] = [_container(each, said) for each, said in (controller.get("containers") or {}).items()]
        if controller.get("initContainers"):
            pod["initContainers"] = [_container(each, said) for each, said in controller["initContainers"].items()]
        _mount(pod, key, values.get("persistence") or {})
        spec = {
            "replicas": controller.get("replicas", 1),
            "strategy": {"type": controller.get("strategy", "Recreate")},
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": pod},
        }
        meta = {"name": _named(release, key, len(every)), "labels": labels}
        made.append({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": meta, "spec": spec})
    services = {key: said for key, said in (values.get("service") or {}).items() if said.get("enabled", True)}
    for key, service in services.items():
        of = service.get("controller") or next(iter(controllers), key)
        labels = {"app.kubernetes.io/instance": release, "app.kubernetes.io/controller": of}
        ports = [{"name": each, "port": said["port"]} for each, said in (service.get("ports") or {}).items()]
        spec = {"selector": labels, "ports": ports}
        meta = {"name": _named(release, key, len(services))}
        made.append({"apiVersion": "v1", "kind": "Service", "metadata": meta, "spec": spec})
    return made


def _named(release: str, key: str, count: int) -> str:
    """The release's name if it is the only object of its kind, or has that name; otherwise both names."""
    return release if count == 1 or key == release or release.endswith(f"-{key}") else f"{release}-{key}"


def _container(name: str, said: Object) -> Object:
    image, env = said.get("image") or {}, said.get("env") or {}
    listed = env if isinstance(env, list) else [{"name": key, **_variable(value)} for key, value in env.items()]
    text = image if isinstance(image, str) else f"{image.get('repository', '')}:{image.get('tag', 'latest')}"
    made: Object = {"name": name, "image": text, "env": listed}
    words = {key: said[key] for key in ("command", "args") if said.get(key)}
    made |= {key: each if isinstance(each, list) else [each] for key, each in words.items()}
    return made | {key: said[key] for key in ("resources", "envFrom") if said.get(key)}


def _variable(value: Any) -> Object:
    return dict(value) if isinstance(value, Mapping) else {"value": str(value)}


def _mount(pod: Object, controller: str, persistence: Object) -> None:
    """The ConfigMaps that the values mount; other volumes do not matter here."""
    for key, said in persistence.items():
        if said.get("type") != "configMap" or not said.get("name"):
            continue
        pod.setdefault("volumes", []).append({"name": key, "configMap": {"name": said["name"]}})
        for container in pod["containers"]:
            own = ((said.get("advancedMounts") or {}).get(controller) or {}).get(container["name"]) or ()
            mounts = [{"name": key, "mountPath": each["path"]} for each in (*own, *(said.get("globalMounts") or ()))]
            container["volumeMounts"] = [*container.get("volumeMounts", ()), *mounts]


def _stack(release: str, values: Object) -> Iterator[Object]:
    """vLLM's production-stack: a Deployment and a Service for each model, without its router."""
    engine = values["servingEngineSpec"]
    for spec in engine["modelSpec"]:
        name, config = f"{release}-{spec['name']}", spec.get("vllmConfig") or {}
        labels = {"model": spec["name"], "helm-release-name": release}
        command = ["vllm", "serve", spec["modelURL"], "--host", "0.0.0.0", "--port", "8000"]
        flags = {"maxModelLen": "--max-model-len", "tensorParallelSize": "--tensor-parallel-size", "dtype": "--dtype"}
        args = [word for key, flag in flags.items() if config.get(key) for word in (flag, str(config[key]))]
        env = [each for each in spec.get("env") or () if "name" in each]
        if spec.get("vllmAPIKey"):
            env.append({"name": "VLLM_API_KEY", "valueFrom": {"secretKeyRef": {"name": "", "key": ""}}})
        container = {
            "name": "vllm",
            "image": f"{spec.get('repository', 'vllm/vllm-openai')}:{spec.get('tag', 'latest')}",
            "command": command + args + [str(each) for each in config.get("extraArgs") or ()],
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
