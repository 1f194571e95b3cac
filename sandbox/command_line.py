"""The command line of a container, after the kubelet and a shell have expanded it.

The kubelet replaces `$(NAME)` with variables of the container, including those from a ConfigMap. A shell replaces
`$NAME` and runs the last command of its script. vLLM reads further arguments from the file in `--config`.
"""

import re
import shlex
from itertools import takewhile

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from sandbox.node import is_gpu
from sandbox.objects import Object, ObjectStore

_SERVERS = re.compile(r"vllm|llama-server|sglang|text-embeddings-router|--model")
_SHELLS = ("sh", "bash", "/bin/sh", "/bin/bash")


def engine_container(pod_spec: Object) -> Object:
    """Return the container that serves requests: the one with a GPU, otherwise the first."""
    containers: list[Object] = pod_spec["containers"]
    with_gpu = (c for c in containers if any(is_gpu(name) for name in ((c.get("resources") or {}).get("limits") or {})))
    return next(with_gpu, containers[0])


class CommandLine:
    """The words of the engine's container in a pod."""

    def __init__(self, store: ObjectStore, pod: Object) -> None:
        self._store, self._namespace = store, pod["metadata"]["namespace"]
        self.container = engine_container(pod["spec"])
        self._volumes = pod["spec"].get("volumes") or []
        self.environment = self._environment()
        self.words = self._words()
        self._config = self._file_arguments()

    @property
    def program(self) -> str:
        """The text that identifies the engine: its image and the words before the first flag."""
        return " ".join(
            [str(self.container.get("image", "")), *takewhile(lambda word: not word.startswith("-"), self.words)]
        )

    def values(self, *flags: str) -> list[str]:
        """Return the values of a flag, by any of its names: the text after `=`, or the following words."""
        for position, word in reversed(list(enumerate(self.words))):  # the last occurrence counts, as in argparse
            name, equals, value = word.partition("=")
            if name.replace("_", "-") in flags:
                following = takewhile(lambda word: not re.match(r"-{1,2}[a-zA-Z]", word), self.words[position + 1 :])
                return [value] if equals else list(following)
        return next((self._config[flag] for flag in flags if flag in self._config), [])

    def value(self, *flags: str) -> str:
        return next(iter(self.values(*flags)), "")

    def positional(self) -> str:
        """Return the model if it is a positional argument: after `serve`, or the first word if the entrypoint is the server."""
        words = self.words[self.words.index("serve") + 1 :] if "serve" in self.words else self.words
        return words[0] if words and not words[0].startswith("-") else ""

    def _words(self) -> list[str]:
        command, args = self.container.get("command") or [], self.container.get("args") or []
        words = [re.sub(r"\$\((\w+)\)", self._variable, str(word)) for word in (*command, *args)]
        if not words or words[0] not in _SHELLS:
            return words
        script = next((word for word in words[1:] if not word.startswith("-")), "").replace("\\\n", " ")
        lines = [line for line in re.split(r"\n|&&|;", script) if _SERVERS.search(line)]
        text = re.sub(r"\$\{?(\w+)\}?", self._variable, lines[-1] if lines else script)
        try:
            parts = shlex.split(text, comments=True)
        except ValueError:
            return text.split()
        return parts[1:] if parts[:1] == ["exec"] else parts

    def _variable(self, match: re.Match[str]) -> str:
        return self.environment.get(match[1], match[0])

    def _environment(self) -> dict[str, str]:
        variables: dict[str, str] = {}
        for source in self.container.get("envFrom") or ():
            variables |= self._config_map((source.get("configMapRef") or {}).get("name", ""))
        for variable in self.container.get("env") or ():
            ref = ((variable.get("valueFrom") or {}).get("configMapKeyRef")) or {}
            if "value" in variable:
                variables[variable["name"]] = re.sub(
                    r"\$\((\w+)\)", lambda m: variables.get(m[1], m[0]), str(variable["value"])
                )
            elif ref:
                variables[variable["name"]] = self._config_map(ref.get("name", "")).get(ref.get("key", ""), "")
        return variables

    def _config_map(self, name: str) -> dict[str, str]:
        config_map = self._store.get("ConfigMap", name, self._namespace) if name else None
        return {key: str(value) for key, value in ((config_map or {}).get("data") or {}).items()}

    def _file_arguments(self) -> dict[str, list[str]]:
        """Return the arguments in the YAML file of vLLM's `--config FILE`, whose keys may have underscores instead of dashes."""
        position = next((n for n, word in enumerate(self.words) if word.partition("=")[0] == "--config"), None)
        if position is None:
            return {}
        word = self.words[position]
        path = word.partition("=")[2] or (self.words[position + 1] if position + 1 < len(self.words) else "")
        for mount in self.container.get("volumeMounts") or ():
            volume: Object = next((volume for volume in self._volumes if volume.get("name") == mount.get("name")), {})
            data = self._config_map((volume.get("configMap") or {}).get("name", ""))
            for key, text in data.items():
                if path in (f"{mount['mountPath'].rstrip('/')}/{key}", mount["mountPath"]):
                    try:
                        arguments = YAML(typ="safe").load(text)
                    except YAMLError:
                        return {}
                    return {
                        f"--{name.replace('_', '-')}": [str(v) for v in (value if isinstance(value, list) else [value])]
                        for name, value in (arguments or {}).items()
                    }
        return {}
