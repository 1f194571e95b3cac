# The card shows every argument that differs, dangerous ones first. An argument that would leak a secret, or that has its own
# option, is refused.
given speed 120

@dev /model add coder-a Qwen/Qwen2.5-Coder-3B-Instruct-AWQ arg=--max-num-seqs=$(VLLM_API_KEY)
expect "Kubernetes replaces" within 20s
@dev /model add coder-a Qwen/Qwen2.5-Coder-3B-Instruct-AWQ arg=--served-model=other
expect "use served=" within 20s
@dev /model add coder-a Qwen/Qwen2.5-Coder-3B-Instruct-AWQ arg=--trust-remote-code arg=--allowed-local-media-path=/
expect "Pull request #1" within 30s
expect "--trust-remote-code: it runs Python code from the model's repository" within 20s
expect "Argument --allowed-local-media-path" within 20s
