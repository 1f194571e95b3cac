# A pull request swaps what an endpoint serves: model, served name, gateway entry, catalog row.
given speed 300

@dev /model swap coder-chat Qwen/Qwen2.5-Coder-14B-Instruct-AWQ
expect "Swap coder-chat to Qwen/Qwen2.5-Coder-14B-Instruct-AWQ" within 30s
expect "Pull request #1" within 30s
github checks pass
expect "Approve & roll out" within 30s
@lead clicks "Approve & roll out"
expect "coder-chat is rolled out" within 60s

@dev /gpu up coder-chat                      # serves the new model, also through the gateway
@lead clicks "Approve"
expect "all smoke tests passed" within 60s
expect not "failed" within 1s
@dev /model list
expect "Qwen2.5-Coder-14B-Instruct-AWQ"
