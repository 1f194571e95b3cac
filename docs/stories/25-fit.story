# Fit shows what a model needs before a pull request is opened. It accepts links, and suggests names for a typo.
given speed 120

@dev /model fit Qwen/Qwen2.5-Coder-14B-Instruct-AWQ
expect "Qwen/Qwen2.5-Coder-14B-Instruct-AWQ: fits"
expect "16384; 32768 at most"
expect "196608 bytes per token: 48 layers"

@dev /model fit https://huggingface.co/Qwen/Qwen2.5-Coder-32B-Instruct-AWQ/tree/main
expect "Qwen/Qwen2.5-Coder-32B-Instruct-AWQ: refused"
expect "choose a smaller or more strongly quantized model, or a larger machine (g2-standard-8)"

@dev /model fit Qwen/Qwen2.5-Coder-32B-Instruct-AWQ gpu=A100-80
expect "Qwen/Qwen2.5-Coder-32B-Instruct-AWQ: fits"

@dev /model fit Qwen/Qwen2.5-Coder-7B-Instruct-AWK
expect "Similar names: Qwen/Qwen2.5-Coder-7B-Instruct-AWQ"

@dev /model fit                              # the shortlist of the settings
expect "Qwen/Qwen2.5-Coder-1.5B: fits"
expect "BAAI/bge-base-en-v1.5: fits"

@dev /model add coder-mini https://huggingface.co/Qwen/Qwen2.5-Coder-3B-Instruct-AWQ
expect "Add coder-mini" within 30s
expect "Pull request #1" within 30s
