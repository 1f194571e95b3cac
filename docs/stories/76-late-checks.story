# Nothing can be approved before CI has finished: no check, a running check, a failed check.
given speed 120

github checks none
@dev /model swap coder-chat Qwen/Qwen2.5-Coder-14B-Instruct-AWQ
expect "It can be approved when a check has" within 30s
expect not "Approve & roll out" within 5s
github checks appear
expect "checks are running" within 30s
expect not "Approve & roll out" within 3s
github checks fail
expect "checks failed" within 30s
github checks pass
@lead clicks "Approve & roll out"
expect merged to "main" within 60s
