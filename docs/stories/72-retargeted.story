# Somebody changes the base branch of the pull request: nothing is merged there; with main as the base it works again.
given speed 120

@dev /model swap coder-chat Qwen/Qwen2.5-Coder-14B-Instruct-AWQ
expect "Pull request #1" within 30s
github checks pass
expect "Approve & roll out" within 30s
github retargets to "release"
expect "changed the base of the pull request to release" within 30s
@dev /gpu status
expect not "Approve & roll out" within 1s
expect not merged
github retargets to "main"
@lead clicks "Approve & roll out"
expect merged to "main" within 60s
expect "coder-chat is rolled out" within 60s
