"""vLLM: `vllm serve MODEL`, or its image with the same arguments.

Source: `EngineArgs.add_cli_args`, `FlexibleArgumentParser` (which reads `--config FILE`, a YAML file of arguments), and
`vllm/entrypoints/openai/api_server.py`; the arguments are those of the versions 0.9 to 0.32.
"""

import re

from manifests.engines import Engine, LoadingLog

_ARGUMENTS = """
    model task runner convert tokenizer tokenizer-mode trust-remote-code dtype seed hf-config-path hf-token
    hf-overrides allowed-local-media-path allowed-media-domains revision code-revision tokenizer-revision
    max-model-len quantization enforce-eager max-logprobs logprobs-mode disable-sliding-window
    disable-cascade-attn skip-tokenizer-init enable-prompt-embeds served-model-name generation-config
    override-generation-config enable-sleep-mode model-impl override-attention-dtype logits-processors
    io-processor-plugin config-format load-format download-dir safetensors-load-strategy
    model-loader-extra-config ignore-patterns use-tqdm-on-load pt-load-map-location reasoning-parser
    reasoning-parser-plugin structured-outputs-config guided-decoding-backend distributed-executor-backend
    pipeline-parallel-size tensor-parallel-size data-parallel-size data-parallel-rank data-parallel-start-rank
    data-parallel-size-local data-parallel-address data-parallel-rpc-port data-parallel-backend
    data-parallel-hybrid-lb data-parallel-external-lb enable-expert-parallel decode-context-parallel-size
    prefill-context-parallel-size all2all-backend enable-eplb eplb-config max-parallel-loading-workers
    disable-custom-all-reduce worker-cls worker-extension-cls nnodes node-rank master-addr master-port
    block-size gpu-memory-utilization kv-cache-memory-bytes swap-space kv-cache-dtype num-gpu-blocks-override
    enable-prefix-caching prefix-caching-hash-algo cpu-offload-gb calculate-kv-scales kv-sharing-fast-prefill
    mamba-cache-dtype mamba-ssm-cache-dtype mamba-block-size kv-offloading-size kv-offloading-backend
    limit-mm-per-prompt enable-mm-embeds media-io-kwargs mm-processor-kwargs mm-processor-cache-gb
    mm-processor-cache-type mm-encoder-tp-mode mm-encoder-attn-backend interleave-mm-strings skip-mm-profiling
    video-pruning-rate language-model-only enable-lora max-loras max-lora-rank lora-dtype max-cpu-loras
    fully-sharded-loras default-mm-loras lora-modules show-hidden-metrics-for-version otlp-traces-endpoint
    collect-detailed-traces kv-cache-metrics cudagraph-metrics max-num-batched-tokens max-num-seqs
    max-num-partial-prefills max-long-partial-prefills long-prefill-token-threshold scheduling-policy
    enable-chunked-prefill disable-chunked-mm-input scheduler-cls disable-hybrid-kv-cache-manager
    async-scheduling stream-interval speculative-config kv-transfer-config kv-events-config ec-transfer-config
    compilation-config attention-backend attention-config additional-config profiler-config optimization-level
    disable-log-stats enable-log-requests disable-log-requests aggregate-engine-logging pooler-config
    override-pooler-config host port uds uvicorn-log-level disable-uvicorn-access-log allow-credentials
    allowed-origins allowed-methods allowed-headers api-key chat-template chat-template-content-format
    trust-request-chat-template default-chat-template-kwargs response-role ssl-keyfile ssl-certfile ssl-ca-certs
    enable-ssl-refresh ssl-cert-reqs root-path middleware return-tokens-as-token-ids
    disable-frontend-multiprocessing enable-request-id-headers enable-auto-tool-choice
    exclude-tools-when-tool-choice-none tool-call-parser tool-parser-plugin tool-server log-config-file
    max-log-len disable-fastapi-docs enable-prompt-tokens-details enable-server-load-tracking
    enable-force-include-usage enable-tokenizer-info-endpoint enable-log-outputs enable-log-deltas
    h11-max-incomplete-event-size h11-max-header-count log-error-stack tokens-only config headless
    api-server-count rope-scaling rope-theta max-seq-len-to-capture cudagraph-capture-sizes
    max-cudagraph-capture-size num-scheduler-steps num-lookahead-slots cuda-graph-sizes use-v2-block-manager
    disable-async-output-proc device moe-backend renderer-num-workers
"""

_SWITCHES = """
    enforce-eager trust-remote-code enable-auto-tool-choice enable-prefix-caching enable-chunked-prefill enable-lora
    enable-expert-parallel enable-sleep-mode disable-log-requests enable-log-requests disable-log-stats
    disable-custom-all-reduce calculate-kv-scales language-model-only async-scheduling disable-uvicorn-access-log
    enable-prompt-tokens-details skip-mm-profiling enable-eplb headless
"""
_COUNTS = """
    port tensor-parallel-size pipeline-parallel-size data-parallel-size max-num-seqs max-num-batched-tokens block-size
    max-loras max-lora-rank api-server-count max-logprobs
"""
_STRUCTURED = """
    hf-overrides speculative-config kv-transfer-config override-generation-config mm-processor-kwargs pooler-config
    default-chat-template-kwargs compilation-config limit-mm-per-prompt structured-outputs-config rope-scaling
"""
_CHOICES = {
    "dtype": "auto half float16 bfloat16 float float32",
    "runner": "auto generate pooling draft",
    "quantization": """
        awq awq_marlin gptq gptq_marlin fp8 fbgemm_fp8 modelopt modelopt_fp4 bitsandbytes compressed-tensors gguf mxfp4
        auto-round torchao quark experts_int8 moe_wna16 petit_nvfp4 none marlin gptq_marlin_24 gptq_bitblas bitblas hqq
        inc ipex ptpc_fp8 deepspeedfp tpu_int8 cpu_awq cpu_gptq rtn qqq modelopt_mixed modelopt_mxfp8
    """,
    "tool-call-parser": """
        apertus cohere_command3 deepseek_v3 deepseek_v31 deepseek_v32 ernie45 functiongemma gemma4 gigachat3 glm45 glm47
        granite granite-20b-fc granite4 hermes hunyuan_a13b internlm jamba kimi_k2 lfm2 llama3_json llama4_json
        llama4_pythonic longcat mimo minimax minimax_m2 mistral olmo3 openai phi4_mini_json pythonic qwen3_coder qwen3_xml
        seed_oss step3 step3p5 xlam
    """,
    "reasoning-parser": """
        cohere_command3 deepseek_r1 deepseek_v3 ernie45 gemma4 glm45 glm47 granite holo2 hunyuan_a13b kimi_k2 mimo
        minimax_m2 minimax_m2_append_think mistral nemotron_v3 olmo3 openai_gptoss qwen3 seed_oss step3 step3p5
    """,
}

ENGINE = Engine(
    name="vLLM",
    sign=re.compile(r"vllm", re.IGNORECASE),
    words=("vllm",),
    is_usual=True,
    implied_by="--model",
    model=("--model",),
    served="--served-model-name",
    context="--max-model-len",
    quantization="--quantization",
    utilization="--gpu-memory-utilization",
    port=8000,
    positional=True,
    config="--config",
    lists=frozenset(
        {"--served-model-name", "--lora-modules", "--middleware", "--cudagraph-capture-sizes", "--ignore-patterns"}
    ),
    short={"-q": "--quantization", "-tp": "--tensor-parallel-size", "-pp": "--pipeline-parallel-size"},
    key=("VLLM_API_KEY", "--api-key"),
    probes=frozenset({"/health", "/ping", "/version", "/load", "/metrics"}),
    arguments=frozenset(f"--{name}" for name in _ARGUMENTS.split()),
    switches=frozenset(f"--{name}" for name in _SWITCHES.split()),
    counts=frozenset(f"--{name}" for name in _COUNTS.split()),
    structured=frozenset(f"--{name}" for name in _STRUCTURED.split()),
    choices={f"--{name}": frozenset(words.split()) for name, words in _CHOICES.items()},
    closed=frozenset({"--dtype", "--runner"}),
    rules=frozenset({"argument", "quantization", "offline", "cold-start"}),
    derives=True,
    signals={
        "vllm:num_requests_running": "running",
        "vllm:num_requests_waiting": "waiting",
        "vllm:request_success_total": "requests",
        "vllm:prompt_tokens_total": "prompt_tokens",
        "vllm:generation_tokens_total": "generation_tokens",
    },
    # `gpu_model_runner.py`, `gpu_worker.py`, `kv_cache_utils.py`
    loading=LoadingLog(
        model=re.compile(r"Model loading took (\d+(?:\.\d+)?) (?:GiB|GB)"),
        cache=re.compile(r"Available KV cache memory: (\d+(?:\.\d+)?) GiB"),
        tokens=re.compile(r"GPU KV cache size: ([\d,]+) tokens"),
        version=re.compile(r"vLLM API server version v?(\d+\.\d+)"),
    ),
    only=frozenset({"--served-model-name", "--max-model-len", "--gpu-memory-utilization"}),
)
