"""What the check can find: each rule by its id, and a finding of it in a file."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

from pydantic import BaseModel, field_validator
from ruamel.yaml.nodes import Node

from manifests.edit import line
from manifests.pieces import Entry, Located


class Rule(NamedTuple):
    """One thing that must hold: what is checked, what happens where it does not, how to mend it."""

    checks: str
    otherwise: str
    fix: str


RULES: Mapping[str, Rule] = MappingProxyType(
    {
        "yaml": Rule(
            "every manifest that the check reads is valid YAML",
            "Argo CD cannot render the Application, and the file is not checked",
            "mend the syntax at the line",
        ),
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
            "an engine that tolerates GPU nodes asks for a GPU",
            "it lands beside one that it cannot use, and the cost gate does not see it",
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
        "service-missing": Rule("the endpoint has a Service", "LiteLLM reaches nothing", "add service.yaml"),
        "target-port": Rule(
            "the Service's `targetPort` is a port of the engine's container",
            "connections to the Service are refused",
            "name the container's port",
        ),
        "claim": Rule(
            "the Deployment's `claimName` is the name of the endpoint's PersistentVolumeClaim",
            "the pod waits for a volume for ever",
            "name the claim of pvc.yaml",
        ),
        "replicas": Rule(
            "a GPU model rests at `replicas: 0`",
            "every sync lights the GPU, and nobody approved the bill",
            "write `replicas: 0`",
        ),
        "strategy": Rule(
            "a GPU model's strategy is `Recreate`",
            "a rolling update waits for a second GPU for ever",
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
        "quantization": Rule(
            "`--quantization` is a format that the weights have",
            "the engine fails at boot",
            "name the weights' format, or remove the argument",
        ),
        "offline": Rule(
            "vLLM runs with `HF_HUB_OFFLINE` and `TRANSFORMERS_OFFLINE` set to 1",
            "the engine reaches for Hugging Face at boot, which answers 429 to busy addresses",
            'set both to "1"',
        ),
        "served-name": Rule(
            "LiteLLM asks for the name that the engine answers to (`openai/<served name>`)",
            "every call through the gateway is a 404",
            "write the engine's `--served-model-name`",
        ),
        "api-base-host": Rule(
            "LiteLLM's `api_base` leads to the endpoint's Service",
            "tenants reach nothing, or another model",
            "write the Service's address",
        ),
        "api-base-port": Rule(
            "the port in `api_base` is a port of the Service", "connections are refused", "write the Service's port"
        ),
        "namespace": Rule(
            "`api_base` names the namespace that the Service is in",
            "tenants reach nothing",
            "write the same namespace in both places",
        ),
        "api-key-missing": Rule(
            "LiteLLM has an `api_key` for an engine that asks for one", "every call is refused", "add the engine's key"
        ),
        "cost-missing": Rule(
            "each model in LiteLLM has `input_cost_per_token`, and `output_cost_per_token` where it writes text",
            "calls cost $0 and budgets never bind",
            "add the price in dollars per token",
        ),
        "cost-not-a-number": Rule(
            "prices are numbers to every YAML reader (YAML 1.1 takes `5e-07` for a string)",
            "LiteLLM fails, or counts nothing",
            "write it out, like 0.0000005",
        ),
        "cost-zero": Rule("prices are above zero", "budgets never bind", "write a price, if a small one"),
        "alias-duplicate": Rule(
            "each alias is given once", "LiteLLM spreads the calls over both models", "keep one of the entries"
        ),
        "alias-without-endpoint": Rule(
            "each alias that leads to the serving namespace has a Service there",
            "calls to the alias fail",
            "name a Service that is there, or remove the alias",
        ),
        "endpoint-without-alias": Rule(
            "each endpoint has an alias in LiteLLM", "tenants cannot reach it", "add an entry to `model_list`"
        ),
        "application-missing": Rule(
            "an Argo CD Application deploys each endpoint", "nothing applies the manifests", "add one to the catalog"
        ),
        "application-name": Rule(
            "the Application is named like the endpoint",
            "scripts and people who sync by name miss it",
            "give it the endpoint's name",
        ),
        "application-path": Rule(
            "the Application's path is the endpoint's directory", "it deploys another model", "write the directory"
        ),
        "ignore-differences": Rule(
            "a GPU Application ignores differences in `/spec/replicas` of its own Deployment",
            "a model that is up is shown as drift",
            "name this Deployment under `ignoreDifferences`",
        ),
        "respect-ignore-differences": Rule(
            "a GPU Application has the sync option `RespectIgnoreDifferences=true`",
            "a sync scales a running model to zero",
            "add it to `syncOptions`",
        ),
        "automated-gpu": Rule(
            "a GPU Application is synced by hand (no `syncPolicy.automated`)",
            "the cost gate is open: a merge lights the GPU",
            "remove `automated`",
        ),
        "manual-apps-missing": Rule(
            "each manual-sync Application is in the word list `manual_apps`",
            "waiting for the platform never ends",
            "add the word",
        ),
        "manual-apps-surplus": Rule(
            "no automated Application is in `manual_apps`", "nobody waits for it", "remove the word"
        ),
        "manual-apps-unknown": Rule(
            "each word of `manual_apps` is an Application", "an Application of that name is not waited for", "remove it"
        ),
        "manual-table-missing": Rule(
            "the table of what is synced by hand names each manual-sync endpoint",
            "whoever brings the platform up leaves it out",
            "add its row",
        ),
        "manual-table-surplus": Rule(
            "that table names no endpoint that syncs by itself", "somebody syncs it for nothing", "remove the row"
        ),
        "catalog-alias": Rule(
            "a row of the model catalog is about an alias that LiteLLM has",
            "tenants call what nothing answers to",
            "remove the row, or add the alias",
        ),
        "catalog-model": Rule(
            "the model catalog's row names the model that the endpoint serves (an endpoint need not have a row)",
            "tenants choose by what is not true",
            "write the model that is served",
        ),
        "catalog-context": Rule(
            "its context is the engine's `--max-model-len`",
            "tenants' longer requests are refused",
            "write the engine's number",
        ),
        "catalog-cost": Rule(
            "its prices are those that LiteLLM counts", "tenants reckon with other bills", "write LiteLLM's prices"
        ),
        "catalog-note": Rule(
            "a note below the catalog that begins with an alias speaks of the model that it serves",
            "tenants choose by what is not true",
            "make the note true, or remove it",
        ),
        "group-disabled": Rule(
            "the group of an endpoint that tenants can call is switched on",
            "its Application does not exist and the alias answers nothing",
            "set the group's flag in the environment's config.yaml and run the generator",
        ),
        "group-stale": Rule(
            "the generated list of groups says what config.yaml says",
            "the ApplicationSet acts on the old list",
            "run the generator that writes the list",
        ),
    }
)


class Finding(BaseModel, frozen=True):
    """One disagreement: its rule, where it stands (lines are counted from 1), what is wrong, what to write instead."""

    rule: str
    path: str
    line: int
    message: str
    fix: str

    @field_validator("rule")
    @classmethod
    def _known(cls, rule: str) -> str:
        if rule not in RULES:
            raise ValueError(f"{rule} is no rule")
        return rule


def at(rule: str, where: Located | Entry, node: Node | None, message: str, fix: str) -> Finding:
    """A finding at a node of a document, or at the piece itself."""
    return Finding(rule=rule, path=where.document.path, line=line(node or where.node), message=message, fix=fix)


def reference() -> str:
    """The rules as a Markdown table, for docs/contract.md."""
    rows = (f"| `{name}` | {rule.checks} | {rule.otherwise} | {rule.fix} |" for name, rule in RULES.items())
    return "\n".join(("| rule | what must hold | otherwise | fix |", "| --- | --- | --- | --- |", *rows)) + "\n"
