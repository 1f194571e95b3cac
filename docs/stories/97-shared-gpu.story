# Ollama, which Stoker does not operate, shares the GPU: both run according to git, so `stoker init` sets `gpu.beside`.
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
