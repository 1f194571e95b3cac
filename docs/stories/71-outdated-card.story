# Slack delays an update of the card: a click on the outdated card changes nothing.
given speed 120

@dev /model swap coder-chat Qwen/Qwen2.5-Coder-14B-Instruct-AWQ
expect "Pull request #1" within 30s
github checks pass
expect "Approve & roll out" within 30s
break slack-429
github pushes "serving/coder-chat/deployment.yaml" with "v0.32.0@sha256:4f0c" as "v0.32.1@sha256:5f0c"
wait 4s
@lead clicks "Approve & roll out"
expect not merged within 5s
mend slack-429
expect "got new commits" within 40s
expect not merged
