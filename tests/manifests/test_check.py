"""Planted faults: each is named with its rule, its file and its line, and a sound repository with nothing."""

import difflib

import pytest

from manifests.contract import Layout, check
from manifests.rules import RULES
from manifests.tree import Files, ManifestError

CHAT = "serving/coder-chat/deployment.yaml"
FIM = "serving/coder-fim/deployment.yaml"
VECTORS = "serving/embeddings/deployment.yaml"
SERVICE = "serving/coder-chat/service.yaml"
PVC = "serving/coder-chat/pvc.yaml"
KUSTOMIZATION = "serving/coder-chat/kustomization.yaml"
APPLICATION = "clusters/ai-dev/catalog/coding-assistant/coder-chat.yaml"
GROUPS = "clusters/ai-dev/groups.generated.yaml"
CONFIG = "environments/ai-dev/config.yaml"
VALUES = "platform/litellm/values.yaml"
CATALOG = "docs/public/reference/model-catalog.md"
GUIDE = "docs/public/guides/staged-bring-up.md"
WAIT = "scripts/wait-profile.sh"
LABEL = "app.kubernetes.io/name: coder-chat"

# Rule, file, what stands there, what is planted instead.
FAULTS = [
    ("staged-model", CHAT, 'model = "Qwen/Qwen2.5-Coder-7B-Instruct-AWQ"', 'model = "Qwen/Qwen2.5-Coder-3B"'),
    ("staged-model", CHAT, "--model=Qwen/Qwen2.5-Coder-7B-Instruct-AWQ", "--model=Qwen/Other-AWQ"),
    ("staged-model", FIM, 'model = "Qwen/Qwen2.5-Coder-1.5B"', 'model = "Qwen/Qwen2.5-Coder-3B"'),
    ("served-name", CHAT, "--served-model-name=qwen2.5-coder-7b-instruct", "--served-model-name=qwen"),
    ("served-name", VALUES, "model: openai/qwen2.5-coder-7b-instruct", "model: openai/qwen2.5-coder-3b"),
    ("served-name", VALUES, "model: openai/qwen2.5-coder-1.5b", "model: openai/qwen2.5-coder-7b-instruct"),
    ("served-name", VALUES, "model: openai/bge-base-en-v1.5", "model: openai/bge-large-en-v1.5"),
    ("quantization", CHAT, "--quantization=awq_marlin", "--quantization=gptq_marlin"),
    (
        "quantization",
        FIM,
        "            - --gpu-memory-utilization=0.85",
        "            - --quantization=awq_marlin\n            - --gpu-memory-utilization=0.85",
    ),
    ("claim", CHAT, "claimName: coder-chat-model-cache", "claimName: coder-chat-cache"),
    ("claim", PVC, "name: coder-chat-model-cache", "name: chat-model-cache"),
    ("claim", VECTORS, "claimName: embeddings-cache", "claimName: embeddings-model-cache"),
    ("replicas", CHAT, "  replicas: 0", "  replicas: 1"),
    ("replicas", FIM, "  replicas: 0\n", ""),
    ("strategy", CHAT, "type: Recreate", "type: RollingUpdate"),
    ("strategy", FIM, "  strategy:\n    type: Recreate\n", ""),
    ("image-digest", CHAT, "@sha256:4f0c1a5d9be27c3380d6f14e2a97b05c86d13fe7420b9a58c7e1d3f6402b8c95", ""),
    ("image-digest", VECTORS, "@sha256:91b7e3d05f2c4a68b1d0937fe86a25c41f7d98e3b60254ac1e9f7380d25b6c4e", ""),
    ("checkov-skip", FIM, "    checkov.io/skip1: CKV_K8S_35=the engine takes its key from the environment only\n", ""),
    ("checkov-skip", CHAT, "    checkov.io/skip1: CKV_K8S_35=the engine takes its key from the environment only\n", ""),
    ("offline", CHAT, "HF_HUB_OFFLINE", "HF_HUB_ONLINE"),
    ("offline", FIM, '            - name: TRANSFORMERS_OFFLINE\n              value: "1"\n', ""),
    ("offline", CHAT, 'HF_HUB_OFFLINE\n              value: "1"', 'HF_HUB_OFFLINE\n              value: "0"'),
    ("pod-selector", CHAT, f"matchLabels:\n      {LABEL}", "matchLabels:\n      app.kubernetes.io/name: chat"),
    ("pod-selector", CHAT, f"labels:\n        {LABEL}", "labels:\n        app.kubernetes.io/name: chat"),
    ("service-selector", SERVICE, f"selector:\n    {LABEL}", "selector:\n    app.kubernetes.io/name: coder"),
    ("target-port", SERVICE, "targetPort: http", "targetPort: web"),
    ("api-base-port", SERVICE, "port: 8000", "port: 8080"),
    ("api-base-port", VALUES, "coder-chat.serving.svc.cluster.local:8000", "coder-chat.serving.svc.cluster.local:80"),
    (
        "api-base-port",
        VALUES,
        "embeddings.serving.svc.cluster.local/v1",
        "embeddings.serving.svc.cluster.local:8000/v1",
    ),
    ("api-base-host", VALUES, "http://coder-chat.serving", "http://coder-chta.serving"),
    ("api-base-host", VALUES, "http://coder-chat.serving", "http://coder-chat.inference"),
    ("api-base-host", SERVICE, "name: coder-chat\n  namespace", "name: chat\n  namespace"),
    ("cost-not-a-number", VALUES, "input_cost_per_token: 0.0000005", "input_cost_per_token: 5e-07"),
    ("cost-not-a-number", VALUES, "input_cost_per_token: 0.0000005", 'input_cost_per_token: "0.0000005"'),
    ("cost-not-a-number", VALUES, "output_cost_per_token: 0.0000015", "output_cost_per_token: free"),
    ("cost-missing", VALUES, "        output_cost_per_token: 0.0000015\n", ""),
    ("cost-missing", VALUES, "        output_cost_per_token: 0.000005\n", ""),
    (
        "cost-missing",
        VALUES,
        "        input_cost_per_token: 0.0000001                  # a CPU costs money as well\n",
        "",
    ),
    ("cost-zero", VALUES, "input_cost_per_token: 0.0000002", "input_cost_per_token: 0.0"),
    ("alias-duplicate", VALUES, "model_name: coder-fim", "model_name: coder-chat"),
    ("alias-without-endpoint", VALUES, "http://egress-gateway.egress", "http://coder-agent.serving"),
    ("application-path", APPLICATION, "path: serving/coder-chat", "path: serving/coder-fim"),
    ("application-path", APPLICATION, "path: serving/coder-chat", "path: serving/chat"),
    ("application-name", APPLICATION, "metadata:\n  name: coder-chat", "metadata:\n  name: chat"),
    ("ignore-differences", APPLICATION, "name: coder-chat\n      namespace", "name: coder-fim\n      namespace"),
    ("ignore-differences", APPLICATION, "- /spec/replicas", "- /spec/template"),
    ("respect-ignore-differences", APPLICATION, "      - RespectIgnoreDifferences=true\n", ""),
    ("automated-gpu", APPLICATION, "  syncPolicy:\n", "  syncPolicy:\n    automated: {}\n"),
    ("manual-apps-missing", WAIT, 'manual_apps="coder-chat coder-fim"', 'manual_apps="coder-fim"'),
    (
        "manual-apps-surplus",
        WAIT,
        'manual_apps="coder-chat coder-fim"',
        'manual_apps="coder-chat coder-fim embeddings"',
    ),
    ("manual-apps-unknown", WAIT, 'manual_apps="coder-chat coder-fim"', 'manual_apps="coder-chat coder-fim coder-old"'),
    (
        "manual-table-missing",
        GUIDE,
        "| `coder-fim` | coding-assistant | 1 GPU | `/v1/models` lists the served name |\n",
        "",
    ),
    (
        "manual-table-surplus",
        GUIDE,
        "\n\nThere is one GPU",
        "\n| `embeddings` | embeddings | nothing | answers |\n\nThere is one GPU",
    ),
    ("kustomization", KUSTOMIZATION, "  - service.yaml\n", ""),
    ("kustomization", KUSTOMIZATION, "  - pvc.yaml\n", "  - claim.yaml\n"),
    ("gpu-limit", CHAT, "              nvidia.com/gpu: 1\n", ""),
    ("gpu-limit", FIM, "nvidia.com/gpu: 1", "nvidia.com/gpu: 0"),
    ("container-port", CHAT, "containerPort: 8000", "containerPort: 8080"),
    ("container-port", VECTORS, "--port=8080", "--port=8081"),
    (
        "weights-path",
        CHAT,
        "HF_HOME\n              value: /models\n            # The",
        "HF_HOME\n              value: /m\n            # The",
    ),
    ("weights-path", FIM, "mountPath: /models", "mountPath: /weights"),
    ("namespace", KUSTOMIZATION, "namespace: serving", "namespace: default"),
    (
        "api-key-missing",
        VALUES,
        "        api_key: os.environ/UPSTREAM_API_KEY             # the engine's key, not a tenant's\n",
        "",
    ),
    ("catalog-alias", CATALOG, "| `coder-fim` |", "| `coder-fill` |"),
    (
        "catalog-alias",
        CATALOG,
        "\n\nA GPU model",
        "\n| old-chat | Qwen/Old | vLLM | none | 1 | – | – | passed |\n\nA GPU model",
    ),
    ("catalog-model", CATALOG, "Qwen/Qwen2.5-Coder-7B-Instruct-AWQ", "Qwen/Qwen2.5-Coder-3B-Instruct-AWQ"),
    ("catalog-model", CATALOG, "Qwen/Qwen2.5-Coder-7B-Instruct-AWQ", "Qwen2.5-Coder-14B-Instruct (AWQ)"),
    ("catalog-model", CATALOG, "Qwen/Qwen2.5-Coder-1.5B", "Qwen2.5-Coder-1.5B (AWQ)"),
    ("catalog-model", CATALOG, "BAAI/bge-base-en-v1.5", "BAAI/bge-large-en-v1.5"),
    ("catalog-context", CATALOG, "| 16384 |", "| 32768 |"),
    ("catalog-context", CATALOG, "| 8192 |", "| 16k |"),
    ("catalog-cost", CATALOG, "$0.0000005 / $0.0000015", "$0.0000005 / $0.000005"),
    ("catalog-cost", CATALOG, "$0.0000001 / –", "$0.0000002 / –"),
    (
        "catalog-note",
        CATALOG,
        "\nA GPU model answers",
        "\n- `coder-chat` is Qwen2.5-Coder-14B-Instruct in 4 bits.\n\nA GPU model answers",
    ),
    ("group-disabled", CONFIG, "coding-assistant: true", "coding-assistant: false"),
    (
        "group-stale",
        GROUPS,
        'name: embeddings, layer: serving, enabled: "true"',
        'name: embeddings, layer: serving, enabled: "false"',
    ),
    ("yaml", CHAT, "  replicas: 0", "  replicas: 0]: {"),
    ("yaml", VALUES, "    - model_name: coder-fim ", "   - model_name: coder-fim "),
]

# A few lines that stand for 9^9 others.
LAUGHS = "l0: &l0 [ha]\n" + "".join(f"l{n}: &l{n} [{', '.join([f'*l{n - 1}'] * 9)}]\n" for n in range(1, 10))

# Whole pieces that are gone: the rule, the path that is deleted, and where the finding stands.
GONE = [
    ("application-missing", APPLICATION, CHAT),
    ("service-missing", SERVICE, CHAT),
    ("claim", PVC, CHAT),
    ("alias-without-endpoint", "serving/embeddings/service.yaml", VALUES),
]


def planted(platform: Files, path: str, old: str, new: str) -> Files:
    files = {each: platform.read(each) or "" for each in platform.files("")}
    assert old in files[path]
    files[path] = files[path].replace(old, new, 1)
    return Files(files)


def test_a_sound_platform_has_no_findings(platform: Files, layout: Layout) -> None:
    """A check that cries wolf is switched off."""
    assert check(platform, layout) == ()


@pytest.mark.parametrize(("rule", "path", "old", "new"), FAULTS)
def test_a_planted_fault_is_named_at_its_line(
    platform: Files, layout: Layout, rule: str, path: str, old: str, new: str
) -> None:
    """By its rule, in the file and on the line where it was planted; for something deleted, in the file."""
    tree = planted(platform, path, old, new)
    found = check(tree, layout)
    named = [each for each in found if (each.rule, each.path) == (rule, path)]
    assert named, found
    lines = (tree.read(path) or "").splitlines()
    before = (platform.read(path) or "").splitlines()
    changes = difflib.SequenceMatcher(None, before, lines, autojunk=False).get_opcodes()
    new_lines = {line + 1 for tag, _, _, first, last in changes if tag != "equal" for line in range(first, last)}
    # A parser may notice on the next line only.
    reach = {line + 1 for line in new_lines} | new_lines if rule == "yaml" else new_lines
    assert all(0 < each.line <= len(lines) for each in named)
    assert not new_lines or any(each.line in reach for each in named), (named, new_lines)


@pytest.mark.parametrize(("rule", "path", "where"), GONE)
def test_a_piece_that_is_gone_is_named(platform: Files, layout: Layout, rule: str, path: str, where: str) -> None:
    """At the piece that needs it."""
    tree = Files({each: platform.read(each) or "" for each in platform.files("") if each != path})
    assert (rule, where) in {(each.rule, each.path) for each in check(tree, layout)}


def test_an_endpoint_without_alias_is_named(platform: Files, layout: Layout) -> None:
    """Tenants could not reach it."""
    values = platform.read(VALUES) or ""
    start, end = values.index("    - model_name: coder-fim"), values.index("    - model_name: embeddings")
    tree = planted(platform, VALUES, values[start:end], "")
    assert {each.rule for each in check(tree, layout)} == {"endpoint-without-alias"}


def test_every_rule_has_a_planted_fault() -> None:
    """A rule that nothing shows to work is a promise."""
    shown = {rule for rule, *_ in (*FAULTS, *GONE)} | {"endpoint-without-alias"}
    assert shown == set(RULES)


def test_a_fault_is_named_where_the_third_place_contradicts(platform: Files, layout: Layout) -> None:
    """Two of three places agree: the finding stands at the odd one, and is the only one."""
    tree = planted(platform, CHAT, f"labels:\n        {LABEL}", "labels:\n        app.kubernetes.io/name: chat")
    (finding,) = check(tree, layout)
    assert (tree.read(CHAT) or "").splitlines()[finding.line - 1].strip() == "app.kubernetes.io/name: chat"
    assert finding.fix == LABEL


def test_the_line_is_the_line_of_the_fault(platform: Files, layout: Layout) -> None:
    """Also inside the literal block of the initContainer."""
    stale = '              model = "Qwen/Stale"'
    tree = planted(platform, CHAT, '              model = "Qwen/Qwen2.5-Coder-7B-Instruct-AWQ"', stale)
    (finding,) = check(tree, layout)
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
def test_a_list_in_other_words_is_left_alone(platform: Files, layout: Layout, path: str, old: str, new: str) -> None:
    """People write a model by its short name, a context in thousands, a price a million tokens."""
    assert check(planted(platform, path, old, new), layout) == ()


@pytest.mark.parametrize(
    ("path", "old", "new"),
    [
        (KUSTOMIZATION, "  - service.yaml\n", "  - ./service.yaml\n"),
        (KUSTOMIZATION, "  - deployment.yaml\n", "patches:\n  - path: deployment.yaml\n"),
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
def test_the_same_contract_in_other_words_is_sound(
    platform: Files, layout: Layout, path: str, old: str, new: str
) -> None:
    """There is more than one way to list a file, to mount a cache, to name a port or a key."""
    assert check(planted(platform, path, old, new), layout) == ()


def test_a_row_whose_alias_is_gone_is_named_where_it_stands(platform: Files, layout: Layout) -> None:
    """The endpoint's own name does not save it; an alias of an alias, or a pattern of aliases, does."""
    other = planted(platform, VALUES, "model_name: coder-fim ", "model_name: coder-fill ")
    found = [each for each in check(other, layout) if each.rule == "catalog-alias"]
    assert [each.message for each in found] == ["the catalog offers coder-fim, and LiteLLM has no such alias"]
    routed = "  router_settings:\n    model_group_alias:\n      coder-fim: coder-fill\n  general_settings:\n"
    for new in (routed, "    - model_name: coder-f*\n  general_settings:\n"):
        also = planted(other, VALUES, "  general_settings:\n", new)
        assert "catalog-alias" not in {each.rule for each in check(also, layout)}


def test_an_endpoint_need_not_be_in_the_catalog(platform: Files, layout: Layout) -> None:
    """Nor need there be a catalog, a guide or a word list at all."""
    row = next(line for line in (platform.read(CATALOG) or "").splitlines() if line.startswith("| `coder-fim`"))
    assert check(planted(platform, CATALOG, f"{row}\n", ""), layout) == ()
    lists = {CATALOG, GUIDE, WAIT}
    assert (
        check(Files({each: platform.read(each) or "" for each in platform.files("") if each not in lists}), layout)
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
def test_odd_input_is_read_or_named(
    platform: Files, layout: Layout, path: str, old: str, new: str, rules: set[str]
) -> None:
    """What is no address, a byte order mark, a nesting that no parser follows: never an exception."""
    found = {each.rule for each in check(planted(platform, path, old, new), layout) if each.path == path}
    assert rules <= found <= rules | {"alias-without-endpoint"}


def test_one_endpoint_can_be_checked_alone(platform: Files, layout: Layout) -> None:
    """A fault in another endpoint is not its own; an unknown name is an error, not silence."""
    tree = planted(platform, CHAT, "  replicas: 0", "  replicas: 1")
    assert check(tree, layout, "coder-fim") == ()
    assert len(check(tree, layout, "coder-chat")) == 1
    with pytest.raises(ManifestError, match="no endpoint 'nobody'"):
        check(platform, layout, "nobody")


def test_a_part_of_a_repository_is_not_blamed_for_what_it_lacks(platform: Files, layout: Layout) -> None:
    """An alias that other files speak of is taken for an endpoint that was left out; one that nobody names is not."""
    files = {
        each: platform.read(each) or ""
        for each in platform.files("")
        if "coder-fim" not in each and "litellm.yaml" not in each
    }
    files[WAIT] = files[WAIT].replace(" coder-fim", "")
    assert check(Files(files), layout) == ()
    files[VALUES] = files[VALUES].replace("http://egress-gateway.egress", "http://ghost.serving")
    assert [each.rule for each in check(Files(files), layout)] == ["alias-without-endpoint"]


def test_a_gateway_that_routes_by_the_served_name_is_an_alias_too(platform: Files, layout: Layout) -> None:
    """Its address is not the Service's, and need not be; the served name still has to agree."""
    values = platform.read(VALUES) or ""
    start, end = values.index("    - model_name: coder-fim"), values.index("    - model_name: embeddings")
    routed = values[start:end].replace(
        "coder-fim.serving.svc.cluster.local:8000", "gateway.inference.svc.cluster.local"
    )
    tree = planted(
        platform, VALUES, values[start:end], routed.replace("model_name: coder-fim", "model_name: autocomplete")
    )
    assert check(planted(tree, CATALOG, "| `coder-fim` |", "| `autocomplete` |"), layout) == ()


def test_a_gateway_in_the_namespace_of_the_models_is_none_of_them(platform: Files, layout: Layout) -> None:
    """It stands in another directory, and what makes it is no model."""
    tree = planted(platform, VALUES, "http://egress-gateway.egress", "http://inference-gateway.serving")
    assert [each.rule for each in check(tree, layout)] == ["alias-without-endpoint"]
    files = {each: tree.read(each) or "" for each in tree.files("")}
    files["routing/gateway.yaml"] = "kind: Gateway\nmetadata: {name: inference-gateway, namespace: serving}\n"
    assert check(Files(files), layout) == ()


def test_what_is_no_endpoint_is_left_alone(platform: Files, layout: Layout) -> None:
    """A Helm template, a Deployment without a model, several engines that serve one model together."""
    files = {each: platform.read(each) or "" for each in platform.files("")}
    files["serving/chart/templates/deployment.yaml"] = "kind: Deployment\nspec: {{ .Values.spec }}\n"
    files["serving/proxy/deployment.yaml"] = "kind: Deployment\nspec: {template: {spec: {containers: [{name: x}]}}}\n"
    engine = (platform.read(CHAT) or "").replace("replicas: 0", "replicas: 2")
    files["serving/split/prefill.yaml"] = files["serving/split/decode.yaml"] = engine
    assert check(Files(files), layout) == ()
