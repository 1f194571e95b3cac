# The card names each file on the branch that the change does not need; nothing can be approved while one is there.
given speed 120

@dev /model swap coder-chat Qwen/Qwen2.5-Coder-14B-Instruct-AWQ
expect "Pull request #1" within 30s
github checks pass
expect "Approve & roll out" within 30s
github pushes "serving/coder-chat/evil.yaml" as "kind: ConfigMap\n"
expect "⛔ serving/coder-chat/evil.yaml:1: the change of coder-chat does not need this file" within 30s
github pushes ".github/workflows/x.yml" as "on: push\n"
expect "⛔ .github/workflows/x.yml:1: this file has nothing to do with coder-chat" within 30s
github pushes "serving/coder-fim/deployment.yaml" with "replicas: 0" as "replicas: 1"
expect "⛔ serving/coder-fim/deployment.yaml:" within 30s
github pushes "clusters/ai-dev/catalog/coding-assistant/evil.yaml" as "kind: Application\nmetadata:\n  name: coder-chat\n"
expect "⛔ clusters/ai-dev/catalog/coding-assistant/evil.yaml:1" within 30s
github checks pass
@dev /gpu status
expect not "Approve & roll out" within 3s
expect not merged
