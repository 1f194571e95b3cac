# People merge or close pull requests on GitHub: Stoker shows this on the card, and acts only on open ones.
given speed 120

@dev /model add coder-mini Qwen/Qwen2.5-Coder-3B-Instruct-AWQ
expect "Pull request #1" within 30s
github checks fail
expect "checks failed" within 30s
expect not "Approve & roll out" within 1s
github closes
expect "was closed on GitHub" within 30s
expect notified @dev "was closed on GitHub" within 30s
expect "Nothing was rolled out"

@dev /model add coder-mini Qwen/Qwen2.5-Coder-3B-Instruct-AWQ     # again, merged by hand
expect "Pull request #2" within 30s
github checks pass
github merges
expect "merged" within 30s
@lead clicks "Approve"                       # only the sync needs approval
expect "coder-mini is rolled out" within 60s
