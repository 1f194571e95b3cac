# Ollama, which Stoker does not operate, has a share of the GPU: git keeps both running, so `stoker init` sets `gpu.beside`.
given platform config-map
given speed 600
@dev /gpu down vllm
expect "vllm is down" within 30s
expect replicas vllm 0
expect replicas ollama 1
@dev /gpu up vllm
expect "Application: vllm"
@lead clicks "Approve"
expect "vllm is up and answers" within 60s
expect replicas ollama 1
