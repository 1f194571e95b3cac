# @dev needs the coding model for a demo and requests it. @lead approves, Stoker brings it up and tests it.
# Then nobody uses it: Stoker reminds @dev of the cost, and @dev brings it down.
given speed 120
given idle.remind_after 7s

@dev /gpu up coder-chat for 2h because demo tonight
expect "Bring up coder-chat"
expect "because demo tonight"
expect "Estimated cost"
expect "Approve"

@dev clicks "Approve"                        # only approvers may spend money
expect "Only approvers can decide this"
expect not "syncing" within 1s

@lead clicks "Approve"
expect "Approved by @lead"
expect "waiting for a node" within 30s
expect "pulling the image" within 30s
expect "loading" within 30s
expect "Smoke tests" within 30s
expect "all smoke tests passed" within 30s
expect not "failed" within 1s
expect not "as the last good run" within 1s  # there is no earlier run

@dev /gpu status
expect "coder-chat"
expect "demo tonight"

traffic coder-chat 2/s for 2s                # somebody uses it, then stops
expect "has been idle" within 30s
@dev clicks "Keep 1 h"
expect "is kept until"

@dev /gpu down
expect "is down and the GPU is free" within 30s
expect "Receipt"
expect "requests"

@dev /gpu status
expect "free"
