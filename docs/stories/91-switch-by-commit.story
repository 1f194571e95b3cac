# Argo CD's selfHeal reverts changes through the API, so Stoker starts and stops models with a commit. The engines are llama.cpp and vLLM.
given platform llama-cpp
given speed 600
@dev /gpu down llama-cpp
expect "llama-cpp is down" within 30s
expect replicas llama-cpp-server 0
@dev /gpu up vllm
expect "Starts by: a commit of ˋreplicas: 1ˋ to main"
@lead clicks "Approve"
expect "vllm is up and answers" within 60s
kubectl scale vllm-server 0
expect replicas vllm-server 1 within 5s
@dev /gpu down vllm
expect "vllm is down" within 30s
expect replicas vllm-server 0
@dev /gpu up llama-cpp
@lead clicks "Approve"
expect "llama-cpp is up and answers" within 60s
