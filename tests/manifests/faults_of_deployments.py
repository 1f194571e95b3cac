"""Further faults that break deployments of vLLM in practice, planted like those of `faults.py`."""

from tests.manifests.faults import APPLICATION, CHAT, FIM, KUSTOMIZATION, PVC, SERVICE, VALUES, VECTORS

_UTILIZATION = "            - --gpu-memory-utilization=0.9\n"
_POD = "      automountServiceAccountToken: false"
_MOUNTS = "            - name: tmp\n              mountPath: /tmp\n      volumes"
_LAST_VOLUME = "        - name: tmp\n          emptyDir: {}"
_READS = "readinessProbe:\n            httpGet:\n              path: /health\n              port: http"
_ROOT = (
    "            allowPrivilegeEscalation: false\n            readOnlyRootFilesystem: true\n            capabilities:\n"
)
_ROOT += '              drop: ["ALL"]\n          resources:\n            requests:\n              cpu: "2"'
_SETTINGS = "  general_settings:\n"


def _argument(rule: str, text: str) -> tuple[str, str, str, str]:
    return (rule, CHAT, _UTILIZATION, f"{_UTILIZATION}            - {text}\n")


def _pod(rule: str, text: str) -> tuple[str, str, str, str]:
    return (rule, CHAT, _POD, f"      {text}\n{_POD}")


# The rule, the file, the text in it, and the text that replaces it.
FAULTS = [
    # Arguments.
    _argument("argument", "--enforce-eager=true"),
    _argument("argument", "--dtype=fp16"),
    _argument("argument", "--limit-mm-per-prompt={image:4}"),
    _argument("argument", "--enable-auto-tool-choice"),
    _argument("argument", "--tool-call-parser=hermess"),
    _argument("argument", "--max-num-seqs=many"),
    _argument("argument", "--tensor-parallel-size=0"),
    _argument("argument", "--port=http"),
    _argument("shared-memory", "--tensor-parallel-size=2"),
    _argument("secret-in-git", "--api-key=topsecret1"),
    ("argument", CHAT, "--quantization=awq_marlin", "--quantization=awq_marlln"),
    ("argument", CHAT, "--model=Qwen/", "--model=https://huggingface.co/Qwen/"),
    ("argument", CHAT, "- --model=Qwen", "- --modle=Qwen"),
    ("argument", CHAT, "--model=Qwen/Qwen2.5-Coder-7B-Instruct-AWQ", "--model="),
    ("argument", CHAT, "          args:\n            - --model", "          command:\n            - --model"),
    ("argument", VECTORS, "--model-id=", "--model="),
    # Manifests that Kubernetes refuses.
    ("admission", CHAT, _LAST_VOLUME, f"{_LAST_VOLUME}\n{_LAST_VOLUME}"),
    ("admission", CHAT, _LAST_VOLUME, f"{_LAST_VOLUME[:-2]}\n            medium: memory"),
    ("admission", CHAT, _LAST_VOLUME, f"{_LAST_VOLUME[:-2]}\n            sizeLimit: 5GB"),
    ("admission", CHAT, _LAST_VOLUME, f"{_LAST_VOLUME}\n          hostPath: {{path: /tmp}}"),
    ("admission", CHAT, _MOUNTS, "            - name: tmp\n              mountPath: /models\n      volumes"),
    ("admission", CHAT, "        - name: vllm\n", "        - name: vLLM\n"),
    ("admission", CHAT, _ROOT, f"            privileged: true\n{_ROOT}"),
    ("admission", CHAT, "runAsUser: 65532", "runAsUser: 0"),
    (
        "admission",
        CHAT,
        "            failureThreshold: 90",
        "            successThreshold: 2\n            failureThreshold: 90",
    ),
    ("admission", CHAT, "          ports:\n            - name: http", "          ports:\n            - name: HTTP_API"),
    (
        "admission",
        CHAT,
        "            - name: VLLM_API_KEY\n",
        "            - name: VLLM_API_KEY\n              value: local\n",
    ),
    ("admission", SERVICE, "      targetPort: http", "      targetPort: http\n    - name: http\n      port: 8001"),
    (
        "admission",
        SERVICE,
        "      targetPort: http",
        "      targetPort: http\n    - port: 8001\n      targetPort: http",
    ),
    ("admission", SERVICE, "      targetPort: http", "      targetPort: http\n      nodePort: 30080"),
    ("target-port", SERVICE, "targetPort: http", 'targetPort: "8000"'),
    ("schema", SERVICE, "spec:\n  selector", "spec:\n  sessionAffinity: clientIP\n  selector"),
    ("schema", FIM, "  replicas: 0", "  minReadySeconds: -1\n  replicas: 0"),
    ("strategy", CHAT, "type: Recreate", "type: Recreate\n    rollingUpdate:\n      maxSurge: 1"),
    ("resources", CHAT, "memory: 6Gi\n            limits", "memory: 6GB\n            limits"),
    ("resources", CHAT, "memory: 6Gi\n            limits", "memory: 6\n            limits"),
    ("resources", CHAT, 'cpu: "4"', "cpu: 4 cores"),
    ("resources", CHAT, 'cpu: "4"', 'cpu: "4000"'),
    # The pod on its node.
    _pod("host-access", "hostIPC: true"),
    _pod("host-access", "hostNetwork: true"),
    _pod("grace-period", "terminationGracePeriodSeconds: 0"),
    _pod("toleration", "nodeName: gpu-node-1"),
    ("probe", CHAT, "  replicas: 0", "  progressDeadlineSeconds: 60\n  replicas: 0"),
    (
        "probe",
        CHAT,
        _READS,
        'readinessProbe:\n            exec:\n              command: [curl, "http://localhost:8080/health"]',
    ),
    ("image-tag", FIM, "image: vllm/vllm-openai", "image: vllm/vllm-openia"),
    ("secret-missing", CHAT, "secretKeyRef:", "configMapKeyRef:"),
    # Volumes.
    ("claim", CHAT, "persistentVolumeClaim:\n            claimName: coder-chat-model-cache", "emptyDir: {}"),
    ("claim", PVC, "spec:\n  access", "spec:\n  volumeMode: Block\n  access"),
    ("volume-size", PVC, "    requests:\n", "    limits:\n      storage: 10Gi\n    requests:\n"),
    (
        "weights-path",
        CHAT,
        f"              mountPath: /models\n{_MOUNTS}",
        f"              mountPath: /models\n              subPath: hub\n{_MOUNTS}",
    ),
    ("kustomization", KUSTOMIZATION, "  - pvc.yaml\n", "  - pvc.yml\n"),
    # Argo CD.
    ("sync-option", APPLICATION, "- RespectIgnore", "- CreateNamespaces=true\n      - RespectIgnore"),
    ("application-finalizer", APPLICATION, "- resources-finalizer", "- resource-finalizer"),
    # LiteLLM.
    ("served-name", VALUES, "openai/qwen2.5-coder-7b-instruct", "vllm/qwen2.5-coder-7b-instruct"),
    ("schema", VALUES, "model: openai/qwen2.5-coder-7b-instruct", "modle: openai/qwen2.5-coder-7b-instruct"),
    (
        "schema",
        VALUES,
        "        output_cost_per_token: 0.0000015\n",
        "        output_cost_per_token: 0.0000015\n        rpm: many\n",
    ),
    (
        "mode",
        VALUES,
        "    - model_name: coder-fim",
        "      model_info:\n        mode: chats\n    - model_name: coder-fim",
    ),
    ("schema", VALUES, _SETTINGS, f"  router_setting:\n    num_retries: 1\n{_SETTINGS}"),
    (
        "schema",
        VALUES,
        _SETTINGS,
        f"  router_settings:\n    fallbacks:\n      coder-chat: [coder-fim]\n{_SETTINGS}",
    ),
    ("variable", VALUES, "os.environ/PROXY_MASTER_KEY", "os.environ/PROXY_MASTERKEY"),
]
