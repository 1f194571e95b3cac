# One self-healing Application deploys every file, and the branch accepts only pull requests (`switch.merge: pull`). A shell starts vLLM.
given platform app-files
given speed 600
given switch.merge pull
@dev /gpu down coder-vllm
expect "coder-vllm is down" within 30s
expect replicas coder-vllm 0
expect merged to "main"
@dev /gpu up coder-vllm
expect "Stoker merges a pull request with it, and Application apps applies it"
@lead clicks "Approve"
expect "coder-vllm is up and answers" within 60s
expect replicas coder-vllm 1
@dev /gpu down coder-vllm
expect "coder-vllm is down" within 30s
