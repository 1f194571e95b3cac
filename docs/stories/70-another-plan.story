# A form and a card are bound to the plan that they showed: they change nothing for another plan.
given speed 120

@dev /model swap coder-chat Qwen/Qwen2.5-Coder-14B-Instruct-AWQ
expect "Pull request #1" within 30s
github checks pass
expect "Approve & roll out" within 30s
@lead clicks "Approve because …"
@lead fills "Because" with "looks good"
github pushes "serving/coder-chat/deployment.yaml" with "v0.32.0@sha256:4f0c" as "v0.32.1@sha256:5f0c"
expect "containers[vllm].image" within 20s
@lead submits
expect "The plan has changed: look again. Nothing was decided" within 20s
expect not merged
github checks pass
@lead clicks "Approve & roll out"             # the new plan is the one on the card
expect merged to "main" within 60s
