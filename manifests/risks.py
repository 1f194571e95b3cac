"""Arguments and variables that are refused, or need a warning.

The names are vLLM's engine and server arguments (docs.vllm.ai/en/stable/configuration/engine_args, cli/serve) and its
environment variables (configuration/env_vars); its docs/usage/security.md explains why some of them are dangerous.
"""

import re

from manifests.tree import ManifestError

ARGUMENT = re.compile(r"--[a-z0-9][a-z0-9-]*(=[^\s\x00-\x1f\x7f-\x9f]+)?")
_SECRET = re.compile(r"(^|-)(key|token|secret|password)$")
_SECRETS = ("--api-key", "--hf-token")
"""vLLM's arguments that take a secret: argparse also accepts abbreviations of them."""

CONTRACT_ARGUMENTS = {
    "--model": "the model id",
    "--model-id": "the model id",
    "--served-model-name": "served=",
    "--quantization": "quantization=",
    "--max-model-len": "context=",
    "--gpu-memory-utilization": "gpu-util=",
    "--port": "the Service (by hand)",
}
"""The arguments of the contract, each with the option that sets it."""

_RUNS_CODE = "it runs code that is not in the image"
_OPENS = "it opens the server to others"
_ELSEWHERE = "it sends data to another address"
_WEIGHTS = "it changes where the weights come from or how they are read"
_OVERRIDES = "it overrides the model's own files"
_LOGS = "it changes the logging of people's requests"
DANGEROUS = {
    "--trust-remote-code": "it runs Python code from the model's repository",
    "--allowed-local-media-path": "every caller of the model can read the container's files below that path",
    "--allowed-media-domains": "it sets the hosts from which the server fetches content for its callers",
    "--api-key": "the key is in git and in the list of processes",
    "--config": "it reads further arguments from a file",
    "--middleware": _RUNS_CODE,
    "--tool-parser-plugin": _RUNS_CODE,
    "--reasoning-parser-plugin": _RUNS_CODE,
    "--io-processor-plugin": _RUNS_CODE,
    "--logits-processors": _RUNS_CODE,
    "--logits-processor-pattern": "it lets callers name code that runs",
    "--worker-cls": _RUNS_CODE,
    "--worker-extension-cls": _RUNS_CODE,
    "--scheduler-cls": _RUNS_CODE,
    "--distributed-executor-backend": "it changes how the engine's processes are run",
    "--trust-request-chat-template": "callers can send templates that the server executes",
    "--enable-prompt-embeds": "callers can send tensors that can crash the engine",
    "--enable-lora": "it loads other weights beside the model",
    "--lora-modules": "it loads other weights beside the model",
    "--enable-sleep-mode": "callers can put the engine to sleep if the development endpoints are enabled",
    "--root-path": "it changes the paths that the gateway calls",
    "--host": "it changes the address at which the gateway reaches the engine",
    "--uds": "the engine listens on a socket that the gateway does not reach",
    "--headless": "the engine serves no API",
    "--allow-credentials": _OPENS,
    "--allowed-origins": _OPENS,
    "--allowed-methods": _OPENS,
    "--allowed-headers": _OPENS,
    "--enable-tokenizer-info-endpoint": _OPENS,
    "--kv-transfer-config": _ELSEWHERE,
    "--kv-events-config": _ELSEWHERE,
    "--ec-transfer-config": _ELSEWHERE,
    "--otlp-traces-endpoint": _ELSEWHERE,
    "--collect-detailed-traces": _ELSEWHERE,
    "--data-parallel-address": _ELSEWHERE,
    "--master-addr": _ELSEWHERE,
    "--profiler-config": "it writes profiles of the engine to a directory",
    "--additional-config": "it passes arbitrary settings to a plugin of the platform",
    "--download-dir": _WEIGHTS,
    "--load-format": _WEIGHTS,
    "--model-loader-extra-config": _WEIGHTS,
    "--model-impl": _WEIGHTS,
    "--config-format": _WEIGHTS,
    "--hf-config-path": _WEIGHTS,
    "--hf-token": "the token is in git and in the list of processes",
    "--tokenizer": _WEIGHTS,
    "--revision": _WEIGHTS,
    "--code-revision": _WEIGHTS,
    "--tokenizer-revision": _WEIGHTS,
    "--speculative-config": "it loads a second model",
    "--hf-overrides": _OVERRIDES,
    "--generation-config": _OVERRIDES,
    "--chat-template": _OVERRIDES,
    "--mm-processor-kwargs": _OVERRIDES,
    "--media-io-kwargs": _OVERRIDES,
    "--log-config-file": _LOGS,
    "--max-log-len": _LOGS,
    "--enable-log-requests": "people's prompts are written to the log",
    "--enable-log-outputs": "the model's answers are written to the log",
    "--disable-log-requests": _LOGS,
    "--disable-log-stats": "the engine's metrics are not logged any more",
    "--disable-uvicorn-access-log": _LOGS,
}
_DANGEROUS_GROUPS = {
    "--ssl-": "the engine uses TLS differently from the gateway and the probes",
    "--override-": _OVERRIDES,
}

_HARMLESS = ("--reasoning-parser",)
"""Harmless arguments of vLLM that are also the beginning of a dangerous name: argparse prefers the exact name."""

VARIABLES = {
    "VLLM_SERVER_DEV_MODE": "it serves development endpoints that everybody with access to the engine can call",
    "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "callers can load other weights",
    "VLLM_ALLOW_INSECURE_SERIALIZATION": "messages between the engine's processes can run code",
    "VLLM_PLUGINS": _RUNS_CODE,
    "VLLM_API_KEY": "a key belongs in a Secret",
    "VLLM_DEBUG_LOG_API_SERVER_RESPONSE": "the model's answers are written to the log",
    "VLLM_LOGGING_CONFIG_PATH": _LOGS,
    "VLLM_CONFIGURE_LOGGING": _LOGS,
    "VLLM_TORCH_PROFILER_DIR": "callers can start a profiler",
    "VLLM_USE_MODELSCOPE": _WEIGHTS,
    "VLLM_HOST_IP": _OPENS,
    "HF_ENDPOINT": _WEIGHTS,
    "HF_TOKEN": "a token belongs in a Secret",
    "PYTHONPATH": _RUNS_CODE,
    "PYTHONSTARTUP": _RUNS_CODE,
    "LD_PRELOAD": _RUNS_CODE,
    "LD_LIBRARY_PATH": _RUNS_CODE,
    "HTTP_PROXY": _ELSEWHERE,
    "HTTPS_PROXY": _ELSEWHERE,
    "ALL_PROXY": _ELSEWHERE,
}


def danger_of(name: str) -> str:
    """The reason why an argument is dangerous; "" for a harmless argument."""
    name = normalised_name(name)
    if name in DANGEROUS or name in CONTRACT_ARGUMENTS or name in _HARMLESS:
        return DANGEROUS.get(name, "")
    group_reasons = (reason for prefix, reason in _DANGEROUS_GROUPS.items() if name.startswith(prefix))
    abbreviation_reasons = (
        f"it may be read as {full_name}, and {reason}"
        for full_name, reason in DANGEROUS.items()
        if full_name.startswith(name)
    )
    return next(group_reasons, "") or next(abbreviation_reasons, "")


def normalised_name(name: str) -> str:
    """The name as vLLM reads it: dashes instead of underscores, without the field after a dot, in lower case."""
    return "--" + name.lstrip("-").partition(".")[0].replace("_", "-").lower()


def refuse_expansion(option: str, text: str) -> None:
    """Refuse `$(NAME)`: Kubernetes replaces it with a variable of the container, which may be a secret.

    `$$(NAME)` is the literal text (kubernetes.io/docs/reference/kubernetes-api, Container v1, `args`).
    """
    for match in re.finditer(r"\$\$|\$\([^)]*\)?", text):
        if match[0] != "$$":
            raise ManifestError(
                f"{option} contains {match[0]!r}, which Kubernetes replaces with the value of a variable, like a key: "
                "write the value itself. Write $$( for a literal $(."
            )


def refuse_argument(argument: str) -> None:
    """Refuse text that is not an argument, arguments of the contract, and secrets.

    Raises ManifestError with the alternative.
    """
    refuse_expansion("arg=", argument)
    name = normalised_name(argument.partition("=")[0].split(" ")[0])
    if contract_argument := _contract_argument(argument, name):
        short = "" if contract_argument == name else f", which argparse reads as {contract_argument},"
        raise ManifestError(
            f"{argument!r}{short} cannot be given as an argument: use {CONTRACT_ARGUMENTS[contract_argument]}."
        )
    if _SECRET.search(name) or (
        len(name) > len("--a") and any(secret_argument.startswith(name) for secret_argument in _SECRETS)
    ):
        # Leave out the value, because the message is posted in Slack.
        raise ManifestError(
            f"{name} takes a secret, which must not be in git: put it into a Secret and read it "
            "from the environment (by hand)."
        )
    if not ARGUMENT.fullmatch(argument):
        raise ManifestError(f"{argument!r} is not an argument: write it as --flag or --flag=value.")
    if name == "--config":
        raise ManifestError("--config reads arguments from a file, which is not checked: give each argument with arg=.")


def _contract_argument(text: str, name: str) -> str:
    """The argument of the contract that this text sets: by its name, its short form, or an abbreviation (argparse)."""
    if re.match(r"-q(?![\w-])|-q=", text):
        return "--quantization"
    if not text.startswith("--") or len(name) < len("--m"):
        return ""
    if name in CONTRACT_ARGUMENTS:
        return name
    return next((full_name for full_name in CONTRACT_ARGUMENTS if full_name.startswith(name)), "")
