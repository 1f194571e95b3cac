# One pull request from Slack turns a new model into an endpoint, without a terminal.
given speed 120

@dev /model add coder-mini Qwen/Qwen2.5-Coder-3B-Instruct-AWQ
expect "Add coder-mini" within 30s
expect "Pull request #1" within 30s
expect "coder-mini" within 30s
expect not "Approve & roll out" within 2s    # the checks have not passed

github checks pass
expect "checks passed" within 30s
expect "Approve & roll out" within 30s

@lead clicks "Approve & roll out"
expect "merged" within 30s
expect "coder-mini is rolled out" within 60s
expect not "failed" within 1s

@dev /model list
expect "coder-mini"
expect "Qwen2.5-Coder-3B-Instruct-AWQ"

@dev /gpu up coder-mini                      # the new endpoint works immediately
@lead clicks "Approve"
expect "all smoke tests passed" within 60s
