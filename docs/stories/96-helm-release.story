# Flux installs HelmReleases of a generic chart. Without drift detection it does not revert replicas, so Stoker scales through the API.
given platform helm-release
given speed 600
@dev /gpu down llama-cpp-chat
expect "llama-cpp-chat is down" within 30s
expect replicas llama-cpp-chat 0
@dev /gpu up vllm
expect "Kustomization: vllm"
@lead clicks "Approve"
expect "vllm is up and answers" within 60s
expect replicas vllm 1
expect not "Starts by" within 1s
@dev /gpu down vllm
expect "vllm is down" within 30s
expect replicas llama-cpp-chat 0
