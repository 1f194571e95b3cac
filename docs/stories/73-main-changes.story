# The approval covers what is deployed: a change of the same endpoint on main voids it, other changes do not.
given speed 120
given github.poll_every 1h                    # so that the merge detects the change

@dev /model swap coder-chat Qwen/Qwen2.5-Coder-14B-Instruct-AWQ
expect "Pull request #1" within 30s
github checks pass
expect "Approve & roll out" within 30s
main changes "README.md" as "This file is not deployed.\n"
main changes "serving/coder-chat/deployment.yaml" with "v0.32.0@sha256:4f0c" as "v0.32.1@sha256:5f0c"
@lead clicks "Approve & roll out"
expect "The content to deploy has changed" within 30s
expect "v0.32.1@sha256:5f0c" within 5s
expect not merged
main changes "README.md" as "This text is not deployed either.\n"
@lead clicks "Approve & roll out"
expect merged to "main" within 60s
