# A repository without CI: with `approvals.checks: none`, a pull request can be approved without checks.
given speed 120
given approvals.checks none

github checks none
@dev /model swap coder-chat Qwen/Qwen2.5-Coder-14B-Instruct-AWQ
expect "Approve & roll out" within 30s
@lead clicks "Approve & roll out"
expect merged to "main" within 60s
