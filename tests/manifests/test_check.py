"""Planted faults: the check reports each with its rule, file and line, and reports nothing in a correct repository."""

import pytest

from manifests.contract import Layout, check
from manifests.platform import Platform
from manifests.rules import RULES
from manifests.tree import Files, ManifestError
from tests.manifests import faults_of_deployments
from tests.manifests.faults import (
    APPLICATION,
    CATALOG,
    CHAT,
    FAULTS,
    GROUPS,
    GUIDE,
    KUSTOMIZATION,
    LABEL,
    PVC,
    SERVICE,
    VALUES,
    WAIT,
    named_at_its_line,
    planted,
)

# A few lines of YAML whose aliases expand to 9^9 items.
LAUGHS = "l0: &l0 [ha]\n" + "".join(f"l{n}: &l{n} [{', '.join([f'*l{n - 1}'] * 9)}]\n" for n in range(1, 10))


# Missing pieces: the rule, the deleted path, and the place of the finding.
GONE = [
    ("application-missing", APPLICATION, CHAT),
    ("service-missing", SERVICE, CHAT),
    ("claim", PVC, CHAT),
    ("alias-without-endpoint", "serving/embeddings/service.yaml", VALUES),
]


def test_a_correct_platform_has_no_findings(platform: Files, layout: Layout) -> None:
    """People would disable a check with false positives."""
    assert check(Platform(platform, layout)) == ()


@pytest.mark.parametrize(("rule", "path", "old", "new"), [*FAULTS, *faults_of_deployments.FAULTS])
def test_a_planted_fault_is_reported_at_its_line(
    platform: Files, layout: Layout, rule: str, path: str, old: str, new: str
) -> None:
    """The finding has the fault's rule, file and line; if content was deleted, it has only the file."""
    named_at_its_line(platform, layout, rule, path, old, new)


@pytest.mark.parametrize(("rule", "path", "reported_path"), GONE)
def test_a_missing_file_is_reported(platform: Files, layout: Layout, rule: str, path: str, reported_path: str) -> None:
    """The finding is at the object that needs the missing file."""
    tree = Files({remaining: platform.read(remaining) or "" for remaining in platform.files("") if remaining != path})
    assert (rule, reported_path) in {(finding.rule, finding.path) for finding in check(Platform(tree, layout))}


def test_an_endpoint_without_an_alias_is_reported(platform: Files, layout: Layout) -> None:
    """Tenants could not reach the endpoint."""
    values = platform.read(VALUES) or ""
    start, end = values.index("    - model_name: coder-fim"), values.index("    - model_name: embeddings")
    tree = planted(platform, VALUES, values[start:end], "")
    assert {finding.rule for finding in check(Platform(tree, layout))} == {"endpoint-without-alias"}


def test_a_group_that_nothing_generates_is_reported_at_its_application(platform: Files, layout: Layout) -> None:
    line = next(line for line in (platform.read(GROUPS) or "").splitlines() if "name: embeddings" in line)
    (finding,) = check(Platform(planted(platform, GROUPS, f"{line}\n", ""), layout))
    assert (finding.rule, finding.path) == ("group-unknown", "clusters/ai-dev/catalog/embeddings/embeddings.yaml")


def test_every_rule_has_a_planted_fault() -> None:
    """A rule without an example of its fault may have no effect."""
    shown_rules = {rule for rule, *_ in (*FAULTS, *faults_of_deployments.FAULTS, *GONE)} | {
        "endpoint-without-alias",
        "group-unknown",
    }
    assert shown_rules == {name for name, rule in RULES.items() if not rule.advice}, "advice is in test_tune.py"
    assert len(FAULTS) >= 150


def test_a_fault_is_reported_at_the_place_that_two_others_contradict(platform: Files, layout: Layout) -> None:
    """Two of three places agree: there is one finding, at the place that differs."""
    tree = planted(platform, CHAT, f"labels:\n        {LABEL}", "labels:\n        app.kubernetes.io/name: chat")
    (finding,) = check(Platform(tree, layout))
    assert (tree.read(CHAT) or "").splitlines()[finding.line - 1].strip() == "app.kubernetes.io/name: chat"
    assert finding.fix == LABEL


def test_a_fault_in_a_literal_block_is_reported_at_its_line(platform: Files, layout: Layout) -> None:
    """This includes the literal block of the initContainer."""
    stale = '              model = "Qwen/Stale"'
    tree = planted(platform, CHAT, '              model = "Qwen/Qwen2.5-Coder-7B-Instruct-AWQ"', stale)
    (finding,) = check(Platform(tree, layout))
    assert (tree.read(CHAT) or "").splitlines()[finding.line - 1] == stale
    assert finding.fix == "stage Qwen/Qwen2.5-Coder-7B-Instruct-AWQ"


@pytest.mark.parametrize(
    ("path", "old", "new"),
    [
        (CATALOG, "Qwen/Qwen2.5-Coder-7B-Instruct-AWQ", "Qwen2.5-Coder-7B-Instruct (4 bits)"),
        (CATALOG, "Qwen/Qwen2.5-Coder-7B-Instruct-AWQ", "[Qwen 2.5 Coder](https://huggingface.co/Qwen)"),
        (CATALOG, "| 16384 |", "| 16k |"),
        (CATALOG, "| 16384 |", "| 16,384 |"),
        (CATALOG, "| 16384 |", "| as the GPU has room |"),
        (CATALOG, "$0.0000005 / $0.0000015", "$0.50 / $1.50 per 1M"),
        (CATALOG, "$0.0000005 / $0.0000015", "5e-7 / 1.5e-6"),
        (CATALOG, "$0.0000005 / $0.0000015", "free this quarter"),
        (CATALOG, "\nA GPU model answers", "\n- `coder-chat` (7B) beats its 3B sibling.\n\nA GPU model answers"),
        (
            CATALOG,
            "\nA GPU model answers",
            "\n- `coder-chat` is Qwen2.5-Coder-7B, half of Qwen2.5-Coder-14B.\n\nA GPU model answers",
        ),
        (CATALOG, "\n\nA GPU model", "\n| *more to come* | – | – | – | – | – | – | – |\n\nA GPU model"),
        (CATALOG, "\nA GPU model", "\n| Word | Meaning |\n| --- | --- |\n| alias | what you call |\n\nA GPU model"),
        (GUIDE, "| `coder-chat` | coding", "| [coder-chat](../x.md) | coding"),
        (GUIDE, "| `coder-chat` |", "| coder-chat, coder-fim |"),
    ],
)
def test_a_list_in_other_words_has_no_findings(platform: Files, layout: Layout, path: str, old: str, new: str) -> None:
    """People write a model's short name, a context in thousands, and a price per million tokens."""
    assert check(Platform(planted(platform, path, old, new), layout)) == ()


@pytest.mark.parametrize(
    ("path", "old", "new"),
    [
        (KUSTOMIZATION, "  - service.yaml\n", "  - ./service.yaml\n"),
        (KUSTOMIZATION, "namespace: serving\n", ""),
        (CHAT, "mountPath: /models", "mountPath: /models/hub"),
        (
            CHAT,
            "HF_HOME\n              value: /models\n            # The",
            "HF_HUB_CACHE\n              value: /m\n            # The",
        ),
        (CHAT, "            - --model=", "            - --port=8000\n            - --model="),
        (VALUES, "api_key: os.environ/UPSTREAM_API_KEY             #", "litellm_credential_name: upstream  #"),
    ],
)
def test_another_notation_of_the_contract_has_no_findings(
    platform: Files, layout: Layout, path: str, old: str, new: str
) -> None:
    """There are several ways to list a file, to mount a cache, and to name a port or a key."""
    assert check(Platform(planted(platform, path, old, new), layout)) == ()


def test_a_row_without_its_alias_is_reported_at_its_line(platform: Files, layout: Layout) -> None:
    """An endpoint with the same name is not sufficient; an alias of an alias, or a pattern of aliases, is sufficient."""
    renamed = planted(platform, VALUES, "model_name: coder-fim ", "model_name: coder-fill ")
    findings = [finding for finding in check(Platform(renamed, layout)) if finding.rule == "catalog-alias"]
    assert [finding.message for finding in findings] == ["the catalog offers coder-fim, but LiteLLM has no such alias"]
    routed = "  router_settings:\n    model_group_alias:\n      coder-fim: coder-fill\n  general_settings:\n"
    for new in (routed, "    - model_name: coder-f*\n  general_settings:\n"):
        also = planted(renamed, VALUES, "  general_settings:\n", new)
        assert "catalog-alias" not in {finding.rule for finding in check(Platform(also, layout))}


def test_an_endpoint_does_not_have_to_be_in_the_catalog(platform: Files, layout: Layout) -> None:
    """A repository needs no catalog, no guide and no word list."""
    row = next(line for line in (platform.read(CATALOG) or "").splitlines() if line.startswith("| `coder-fim`"))
    assert check(Platform(planted(platform, CATALOG, f"{row}\n", ""), layout)) == ()
    lists = {CATALOG, GUIDE, WAIT}
    assert (
        check(
            Platform(
                Files({path: platform.read(path) or "" for path in platform.files("") if path not in lists}), layout
            )
        )
        == ()
    )


@pytest.mark.parametrize(
    ("path", "old", "new", "rules"),
    [
        (VALUES, "http://egress-gateway.egress.svc.cluster.local/v1", "http://[::1/v1", set()),
        (VALUES, "http://coder-chat.serving.svc.cluster.local", "http://[coder", {"api-base-host", "api-base-port"}),
        (SERVICE, "apiVersion: v1\nkind: Service\n", "\ufeffkind: Service\napiVersion: v1\n", set()),
        (SERVICE, "spec:\n", "deep: " + "[" * 3000 + "]" * 3000 + "\nspec:\n", {"yaml"}),
        (SERVICE, "spec:\n", "own: &own [*own]\nspec:\n", {"yaml"}),
        (SERVICE, "spec:\n", LAUGHS + "spec:\n", {"yaml"}),
    ],
)
def test_unusual_input_is_read_or_reported(
    platform: Files, layout: Layout, path: str, old: str, new: str, rules: set[str]
) -> None:
    """An invalid URL, a byte order mark or extreme nesting never raises an exception."""
    broken_rules = {
        finding.rule for finding in check(Platform(planted(platform, path, old, new), layout)) if finding.path == path
    }
    assert rules <= broken_rules <= rules | {"alias-without-endpoint"}


def test_one_endpoint_can_be_checked_alone(platform: Files, layout: Layout) -> None:
    """Faults of other endpoints are not reported; an unknown name is an error."""
    tree = planted(platform, CHAT, "  replicas: 0", "  replicas: 1")
    assert check(Platform(tree, layout), "coder-fim") == ()
    assert len(check(Platform(tree, layout), "coder-chat")) == 1
    with pytest.raises(ManifestError, match="no endpoint 'nobody'"):
        check(Platform(platform, layout), "nobody")


def test_a_partial_checkout_has_no_findings_about_missing_files(platform: Files, layout: Layout) -> None:
    """An alias that other files mention may belong to a missing endpoint; an alias that no file mentions is a finding."""
    files = {
        path: platform.read(path) or ""
        for path in platform.files("")
        if "coder-fim" not in path and "litellm.yaml" not in path
    }
    files[WAIT] = files[WAIT].replace(" coder-fim", "")
    assert check(Platform(Files(files), layout)) == ()
    files[VALUES] = files[VALUES].replace("http://egress-gateway.egress", "http://ghost.serving")
    assert [finding.rule for finding in check(Platform(Files(files), layout))] == ["alias-without-endpoint"]


def test_an_alias_may_lead_to_a_gateway_that_routes_by_served_name(platform: Files, layout: Layout) -> None:
    """The address of the alias may differ from that of the Service; the served name must still match."""
    values = platform.read(VALUES) or ""
    start, end = values.index("    - model_name: coder-fim"), values.index("    - model_name: embeddings")
    routed = values[start:end].replace(
        "coder-fim.serving.svc.cluster.local:8000", "gateway.inference.svc.cluster.local"
    )
    tree = planted(
        platform, VALUES, values[start:end], routed.replace("model_name: coder-fim", "model_name: autocomplete")
    )
    tree = planted(tree, "platform/key-portal/values.yaml", "- coder-fim", "- autocomplete")
    assert check(Platform(planted(tree, CATALOG, "| `coder-fim` |", "| `autocomplete` |"), layout)) == ()


def test_a_gateway_in_the_namespace_of_the_models_is_not_an_endpoint(platform: Files, layout: Layout) -> None:
    """The gateway's manifest is in another directory, and the gateway is not a model."""
    tree = planted(platform, VALUES, "http://egress-gateway.egress", "http://inference-gateway.serving")
    assert [finding.rule for finding in check(Platform(tree, layout))] == ["alias-without-endpoint"]
    files = {path: tree.read(path) or "" for path in tree.files("")}
    files["routing/gateway.yaml"] = "kind: Gateway\nmetadata: {name: inference-gateway, namespace: serving}\n"
    assert check(Platform(Files(files), layout)) == ()


def test_objects_that_are_not_endpoints_are_ignored(platform: Files, layout: Layout) -> None:
    """These are a Helm template, a Deployment without a model, and several engines that serve one model together."""
    files = {path: platform.read(path) or "" for path in platform.files("")}
    files["serving/chart/templates/deployment.yaml"] = "kind: Deployment\nspec: {{ .Values.spec }}\n"
    files["serving/proxy/deployment.yaml"] = "kind: Deployment\nspec: {template: {spec: {containers: [{name: x}]}}}\n"
    engine = (platform.read(CHAT) or "").replace("replicas: 0", "replicas: 2")
    files["serving/split/prefill.yaml"] = files["serving/split/decode.yaml"] = engine
    assert check(Platform(Files(files), layout)) == ()
