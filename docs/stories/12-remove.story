# One pull request removes an endpoint and lists what it deletes. A running model has to be brought down first.
given speed 120

@dev /model remove coder-nothing
expect "Unknown model" within 30s
@dev /model remove coder-fim portal=yes
expect "Remove coder-fim" within 60s
expect "Pull request #1" within 30s
expect "the volume coder-fim-model-cache" within 30s
github checks pass
expect "Approve deletion" within 60s
@lead clicks "Approve deletion"
expect "coder-fim is removed" within 120s
expect not "failed" within 1s

@dev /model list
expect "2 endpoints" within 30s
@dev /model check
expect "No problems found" within 60s
@dev /model smoke coder-chat
expect "there is nothing to test" within 30s
