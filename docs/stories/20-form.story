# Without a model id a form opens: it searches the Hub, and shows the pull request before it opens anything.
given speed 120

@dev /model add coder-mini
expect "Model on Hugging Face"
@dev fills "Model on Hugging Face" with "Qwen/Qwen2.5-Coder-3B-Instruct-AWQ"
expect "Sizing: fits" within 30s
expect "serving/coder-mini/deployment.yaml"
@dev fills "Context" with "a lot"
expect "use a number of tokens, like 16384" within 30s
@dev fills "Context" with "8192"
expect "8192" within 30s
@dev clicks "Advanced …"
expect "Volume"
@dev fills "Volume" with "huge"
@dev submits
expect "write it like 20Gi"
@dev fills "Volume" with "30Gi"
@dev fills "Price per million input tokens, dollars" with "cheap"
@dev submits
expect "dollars per million tokens, like 0.50"
@dev fills "Price per million input tokens, dollars" with "0.40"
@dev fills "Arguments of vLLM" with "--model=another"
@dev submits
expect "cannot be given as an argument"
@dev fills "Arguments of vLLM" with "--enable-prefix-caching"
@dev submits
expect "Volume: 30Gi" within 30s
@dev submits
expect "Add coder-mini" within 30s
expect "Pull request #1" within 30s
expect "8192"
expect "30Gi"

@dev /model swap
expect "Endpoint"
@dev fills "Endpoint" with "coder-chat"
@dev fills "Model on Hugging Face" with "Qwen/Qwen2.5-Coder-32B-Instruct-AWQ"
expect "does not fit" within 30s
@dev submits
expect "see the reason at the end" within 30s   # it is not shown twice
