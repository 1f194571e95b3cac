# @dev needs the coding model for a demo: asks, @lead approves, it comes up and proves that it answers.
# Then nobody uses it, Stoker says what that costs, and @dev banks the fire.
given speed 120
given idle.remind_after 7s

@dev /gpu up coder-chat for 2h because demo tonight
expect "Bring up coder-chat"
expect "because demo tonight"
expect "Estimated cost"
expect "Approve"

@dev clicks "Approve"                        # not everybody may spend money
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
expect not "as the last good run" within 1s  # there was none to compare with

@dev /gpu status
expect "coder-chat"
expect "demo tonight"

traffic coder-chat 2/s for 2s                # somebody works with it, then goes home
expect "has been idle" within 30s
@dev clicks "Keep 1 h"
expect "is kept until"

@dev /gpu down
expect "is down and the GPU is free" within 30s
expect "Receipt"
expect "requests"

@dev /gpu status
expect "free"
