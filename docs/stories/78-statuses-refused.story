# A token that may not read commit statuses can still open the pull request, and the card mentions it.
given speed 120
break statuses-refused

@dev /model swap coder-chat Qwen/Qwen2.5-Coder-14B-Instruct-AWQ
expect "Pull request #1" within 30s
expect "does not let the token read commit statuses" within 10s
github checks pass
@lead clicks "Approve & roll out"
expect merged to "main" within 60s
