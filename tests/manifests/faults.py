"""Faults for the sample platform, and the paths of its files."""

import difflib

from manifests.contract import Layout, check
from manifests.platform import Platform
from manifests.tree import Files

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


# The rule, the file, the text in it, and the text that replaces it.
FAULTS = [
    ("cost-order", VALUES, "input_cost_per_token: 0.0000002", "input_cost_per_token: 0.000002"),
    (
        "mode",
        VALUES,
        "    - model_name: coder-fim",
        "      model_info:\n        mode: embedding\n    - model_name: coder-fim",
    ),
    ("schema", CHAT, "  replicas: 0", '  replicas: "0"'),
    ("variable", CHAT, "VLLM_API_KEY", "VLLM_APIKEY"),
    ("read-only-root", FIM, "        fsGroup: 65532\n", ""),
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
    ("api-base-scheme", VALUES, "http://coder-chat.serving", "https://coder-chat.serving"),
    (
        "api-base-path",
        VALUES,
        "coder-chat.serving.svc.cluster.local:8000/v1",
        "coder-chat.serving.svc.cluster.local:8000",
    ),
    (
        "api-base-path",
        VALUES,
        "coder-fim.serving.svc.cluster.local:8000/v1",
        "coder-fim.serving.svc.cluster.local:8000/v1/completions",
    ),
    ("cost-implausible", VALUES, "input_cost_per_token: 0.0000002", "input_cost_per_token: 0.2"),
    (
        "alias-unknown",
        VALUES,
        "  general_settings:\n",
        "  router_settings:\n    fallbacks:\n      - coder-chat: [coder-old]\n  general_settings:\n",
    ),
    (
        "alias-unknown",
        VALUES,
        "  general_settings:\n",
        "  router_settings:\n    model_group_alias:\n      gpt-4: coder-old\n  general_settings:\n",
    ),
    (
        "alias-unknown",
        VALUES,
        "  general_settings:\n",
        "  litellm_settings:\n    default_fallbacks:\n      - coder-old\n  general_settings:\n",
    ),
    ("secret-in-git", VALUES, "api_key: os.environ/UPSTREAM_API_KEY             # the", "api_key: sk-3f9a81c27d # the"),
    (
        "not-checked",
        VALUES,
        "api_base: http://coder-chat.serving.svc.cluster.local:8000/v1",
        "api_base: os.environ/CHAT_URL",
    ),
    # Arguments and the container.
    ("argument", CHAT, "--gpu-memory-utilization=0.9", "--gpu-memory-utilization=1.9"),
    ("argument", FIM, "--gpu-memory-utilization=0.85", "--gpu-memory-utilization=85"),
    ("argument", CHAT, "--max-model-len=16384", "--max-model-len=16384tokens"),
    ("argument", CHAT, "--served-model-name=qwen2.5-coder-7b-instruct", '"--served-model-name=qwen2.5 coder 7b"'),
    (
        "argument",
        CHAT,
        "            - --gpu-memory-utilization=0.9\n",
        "            - --gpu-memory-utilization=0.9\n            - --max-model-len=8192\n",
    ),
    ("gpu-limit", CHAT, "nvidia.com/gpu: 1", "nvidia.com/gpu: 2"),
    (
        "gpu-limit",
        CHAT,
        "              memory: 6Gi\n            limits",
        "              memory: 6Gi\n              nvidia.com/gpu: 2\n            limits",
    ),
    (
        "gpu-limit",
        FIM,
        "            - --max-model-len=8192 ",
        "            - --tensor-parallel-size=2\n            - --max-model-len=8192 ",
    ),
    ("resources", CHAT, "              memory: 6Gi", "              memory: 60Gi"),
    (
        "resources",
        CHAT,
        '              cpu: "2"\n              memory: 6Gi',
        '              cpu: "8"\n              memory: 6Gi',
    ),
    ("resources", CHAT, "              memory: 14Gi", "              memory: 4Gi"),
    ("resources", FIM, "              cpu: 500m", "              cpu: 2500m"),
    (
        "probe",
        CHAT,
        "path: /health\n              port: http\n            periodSeconds: 5",
        "path: /healthz\n              port: http\n            periodSeconds: 5",
    ),
    (
        "probe",
        CHAT,
        "path: /health\n              port: http\n            periodSeconds: 30",
        "path: /health\n              port: 8080\n            periodSeconds: 30",
    ),
    (
        "probe",
        FIM,
        "path: /health\n              port: http\n            periodSeconds: 5",
        "path: /v1/models\n              port: http\n            periodSeconds: 5",
    ),
    ("probe", VECTORS, "port: http\n            periodSeconds: 5", "port: web\n            periodSeconds: 5"),
    ("probe", CHAT, "failureThreshold: 90 ", "failureThreshold: 3 "),
    (
        "probe",
        FIM,
        "          startupProbe:\n            httpGet:\n              path: /health\n              port: http\n            periodSeconds: 10\n            failureThreshold: 60               # 10 min are plenty for 3 GB of weights\n",
        "",
    ),
    (
        "toleration",
        CHAT,
        "      tolerations:\n        - key: nvidia.com/gpu\n          operator: Exists\n          effect: NoSchedule\n",
        "",
    ),
    ("toleration", FIM, "- key: nvidia.com/gpu", "- key: nvidia.com/gpus"),
    ("image-tag", CHAT, "v0.32.0@", "v0.31.0@"),
    ("image-tag", FIM, "@sha256:4f0c1a5d9be2", "@sha256:5f0c1a5d9be2"),
    ("image-digest", FIM, "v0.32.0@sha256:4f0c1a5d9be27c3380d6f14e2a97b05c86d13fe7420b9a58c7e1d3f6402b8c95", "latest"),
    ("image-digest", CHAT, "86d13fe7420b9a58c7e1d3f6402b8c95", "86d13fe7420b9a58c7e1d3f6402b8c9"),
    ("secret-missing", CHAT, "name: vllm-api-key # one", "name: vllm-key # one"),
    ("secret-missing", FIM, "key: api-key", "key: api_key"),
    (
        "secret-in-git",
        CHAT,
        "            - name: HOME\n              value: /tmp\n          securityContext",
        "            - name: HF_TOKEN\n              value: hf_kQzTgPdVbNxWmLrJ\n          securityContext",
    ),
    (
        "secret-in-git",
        FIM,
        "              valueFrom:\n                secretKeyRef:\n                  name: vllm-api-key # one key for the whole namespace\n                  key: api-key\n",
        "              value: 9f8e7d6c5b4a3210\n",
    ),
    (
        "secret-in-git",
        CHAT,
        "            - --gpu-memory-utilization=0.9\n",
        "            - --gpu-memory-utilization=0.9\n            - --api-key=sk-9f8e7d6c5b4a\n",
    ),
    ("secret-in-git", VALUES, "master_key: os.environ/PROXY_MASTER_KEY", "master_key: sk-9f8e7d6c5b4a"),
    # Volumes and weights.
    ("volume-size", PVC, "storage: 20Gi", "storage: 2Gi"),
    ("volume-size", PVC, "storage: 20Gi", "storage: 20GB"),
    ("volume-size", "serving/coder-fim/pvc.yaml", "storage: 10Gi", "storage: 10"),
    ("claim-shared", FIM, "claimName: coder-fim-model-cache", "claimName: coder-chat-model-cache"),
    ("claim", FIM, "claimName: coder-fim-model-cache", "claimName: coder-chat-model-cache"),
    (
        "volume-mount",
        CHAT,
        "            - name: tmp\n              mountPath: /tmp\n          resources",
        "            - name: temp\n              mountPath: /tmp\n          resources",
    ),
    ("volume-mount", VECTORS, "            - name: cache\n", "            - name: model-cache\n"),
    (
        "staging-offline",
        CHAT,
        "            - name: HOME\n              value: /tmp\n          securityContext",
        '            - name: HF_HUB_OFFLINE\n              value: "1"\n          securityContext',
    ),
    (
        "weights-path",
        FIM,
        "HF_HOME\n              value: /models\n            - name: HOME",
        "HF_HOME\n              value: /models/hub\n            - name: HOME",
    ),
    (
        "weights-path",
        CHAT,
        "            - name: model-cache\n              mountPath: /models\n            - name: tmp\n              mountPath: /tmp\n          resources",
        "            - name: tmp\n              mountPath: /tmp\n          resources",
    ),
    (
        "offline",
        FIM,
        'TRANSFORMERS_OFFLINE\n              value: "1"',
        'TRANSFORMERS_OFFLINE\n              value: "false"',
    ),
    ("served-name", VECTORS, "--model-id=BAAI/bge-base-en-v1.5", "--model-id=BAAI/bge-large-en-v1.5"),
    ("weights-path", VECTORS, "value: /data", "value: /cache"),
    (
        "api-base-port",
        VALUES,
        "embeddings.serving.svc.cluster.local/v1",
        "embeddings.serving.svc.cluster.local:8080/v1",
    ),
    # Names and files.
    ("deployment-name", CHAT, "metadata:\n  name: coder-chat\n", "metadata:\n  name: coder-chta\n"),
    ("namespace", CHAT, "  namespace: serving", "  namespace: servng"),
    ("namespace", SERVICE, "  namespace: serving", "  namespace: default"),
    ("namespace", PVC, "  namespace: serving", "  namespace: default"),
    ("kustomization", KUSTOMIZATION, "  - service.yaml\n", "  - service.yaml\n  - servicemonitor.yaml\n"),
    ("kustomization", KUSTOMIZATION, "  - service.yaml\n", "  - service.yaml\n  - pvc.yaml\n"),
    ("duplicate-key", CHAT, "  replicas: 0\n", "  replicas: 0\n  replicas: 3\n"),
    (
        "duplicate-key",
        VALUES,
        "        output_cost_per_token: 0.0000015\n",
        "        output_cost_per_token: 0.0000015\n        output_cost_per_token: 0.0000025\n",
    ),
    ("duplicate-key", APPLICATION, "  project: platform\n", "  project: platform\n  project: default\n"),
    ("duplicate-key", CONFIG, "  egress: false", "  embeddings: false\n  egress: false"),
    ("target-port", SERVICE, "targetPort: http", "targetPort: 8080"),
    ("service-selector", SERVICE, f"selector:\n    {LABEL}", "selector:\n    app: coder-chat"),
    # Argo CD.
    (
        "application-path",
        "clusters/ai-dev/catalog/embeddings/embeddings.yaml",
        "path: serving/embeddings",
        "path: serving/embedding",
    ),
    (
        "application-path-shared",
        "clusters/ai-dev/catalog/coding-assistant/coder-fim.yaml",
        "path: serving/coder-fim",
        "path: serving/coder-chat",
    ),
    ("application-revision", APPLICATION, "targetRevision: main", "targetRevision: develop"),
    ("application-repository", APPLICATION, "acme/llm-platform.git", "acme/llm-plattform.git"),
    (
        "application-destination",
        APPLICATION,
        "kubernetes.default.svc\n    namespace: serving",
        "kubernetes.default.svc\n    namespace: default",
    ),
    ("application-project", APPLICATION, "project: platform", "project: platfrom"),
    ("application-namespace", APPLICATION, "  namespace: argocd", "  namespace: argo"),
    ("application-finalizer", APPLICATION, "  finalizers:\n    - resources-finalizer.argocd.argoproj.io\n", ""),
    ("ignore-differences", APPLICATION, "kind: Deployment", "kind: StatefulSet"),
    ("ignore-differences", APPLICATION, "group: apps", 'group: ""'),
    (
        "ignore-differences",
        APPLICATION,
        "name: coder-chat\n      namespace: serving",
        "name: coder-chat\n      namespace: default",
    ),
    ("respect-ignore-differences", APPLICATION, "RespectIgnoreDifferences=true", "RespectIgnoreDifferences=false"),
    ("automated-gpu", APPLICATION, "  syncPolicy:\n", "  syncPolicy:\n    automated:\n      prune: true\n"),
    (
        "group-path",
        GROUPS,
        "catalogPath: clusters/ai-dev/catalog/coding-assistant",
        "catalogPath: clusters/ai-dev/catalog/coding-assistent",
    ),
    ("group-path", GROUPS, "name: coding-assistant, layer", "name: coding, layer"),
    ("group-disabled", CONFIG, "embeddings: true", "embeddings: false"),
    # LiteLLM.
    ("served-name", VALUES, "model: openai/qwen2.5-coder-1.5b", "model: qwen2.5-coder-1.5b"),
    ("api-base-port", VALUES, "coder-fim.serving.svc.cluster.local:8000", "coder-fim.serving.svc.cluster.local:8080"),
    ("api-base-host", VALUES, "http://coder-fim.serving", "http://coder-fim.default"),
    ("api-base-host", VALUES, "http://embeddings.serving", "http://embedding.serving"),
    ("cost-not-a-number", VALUES, "output_cost_per_token: 0.0000004", "output_cost_per_token: 4e-07"),
    ("cost-implausible", VALUES, "output_cost_per_token: 0.0000015", "output_cost_per_token: 1.5"),
    (
        "alias-unknown",
        VALUES,
        "  general_settings:\n",
        "  router_settings:\n    context_window_fallbacks:\n      - coder-chta: [claude-haiku]\n  general_settings:\n",
    ),
    (
        "alias-unknown",
        VALUES,
        "  general_settings:\n",
        "  litellm_settings:\n    content_policy_fallbacks: [{coder-chat: [claude]}]\n  general_settings:\n",
    ),
    # Lists that people read.
    ("portal-alias", "platform/key-portal/values.yaml", "    - coder-fim\n", "    - coder-fmi\n"),
    ("portal-alias", "platform/key-portal/values.yaml", "    - embeddings\n", "    - embeddings\n    - coder-agent\n"),
    ("portal-alias", "platform/key-portal/values.yaml", "    - embeddings\n", "    - embeddings\n    - coder-chat\n"),
    ("catalog-hardware", CATALOG, "vLLM | 1 × L4 | 16384", "vLLM | 2 × L4 | 16384"),
    ("catalog-hardware", CATALOG, "vLLM | 1 × L4 | 8192", "vLLM | none | 8192"),
    ("catalog-hardware", CATALOG, "TEI | none", "TEI | 1 × L4"),
    ("catalog-hardware", CATALOG, "Qwen/Qwen2.5-Coder-1.5B | vLLM", "Qwen/Qwen2.5-Coder-1.5B | TEI"),
    ("catalog-alias", CATALOG, "| `claude-haiku` |", "| `coder-chat` |"),
    ("catalog-cost", CATALOG, "$0.0000002 / $0.0000004", "$0.0000002 / $0.0000003"),
    ("manual-apps-missing", WAIT, 'manual_apps="coder-chat coder-fim"', 'manual_apps="coder-chat"'),
    ("suppression", CHAT, "  replicas: 0", "  replicas: 0 # stoker: ignore replicas: an old reason"),
    ("yaml", CHAT, "  replicas: 0", "  replicas: 0]: {"),
    ("yaml", VALUES, "    - model_name: coder-fim ", "   - model_name: coder-fim "),
]


def planted(platform: Files, path: str, old: str, new: str) -> Files:
    files = {path: platform.read(path) or "" for path in platform.files("")}
    assert old in files[path]
    files[path] = files[path].replace(old, new, 1)
    return Files(files)


def named_at_its_line(platform: Files, layout: Layout, rule: str, path: str, old: str, new: str) -> None:
    """Assert that the finding has the fault's rule, file and line; for deleted content, only the file."""
    tree = planted(platform, path, old, new)
    findings = check(Platform(tree, layout))
    named = [finding for finding in findings if (finding.rule, finding.path) == (rule, path)]
    assert named, findings
    lines = (tree.read(path) or "").splitlines()
    before = (platform.read(path) or "").splitlines()
    changes = difflib.SequenceMatcher(None, before, lines, autojunk=False).get_opcodes()
    new_lines = {line + 1 for tag, _, _, first, last in changes if tag != "equal" for line in range(first, last)}
    # A parser may notice the fault only on the next line.
    reach = {line + 1 for line in new_lines} | new_lines if rule == "yaml" else new_lines
    assert all(0 < finding.line <= len(lines) for finding in named)
    assert not new_lines or any(finding.line in reach for finding in named), (named, new_lines)
