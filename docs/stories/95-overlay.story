# Flux deploys an overlay. vLLM reads its arguments from a file, and a script starts llama.cpp. LiteLLM's models are in its database.
given platform overlays
given speed 600
@dev /gpu down vllm
expect "vllm is down" within 30s
expect replicas vllm 0
@dev /gpu up llama
expect "Starts by: a commit of ˋreplicas: 1ˋ to main"
@lead clicks "Approve"
expect "llama is up and answers" within 60s
@dev /gpu down llama
expect "llama is down" within 30s
@dev /gpu up vllm
@lead clicks "Approve"
expect "vllm is up and answers" within 60s
