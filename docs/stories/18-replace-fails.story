# A replacement that does not answer is rolled back: the previous model comes back for its remaining time.
given speed 300

@dev /gpu up coder-chat for 3h because evaluation run
@lead clicks "Approve"
expect "all smoke tests passed" within 60s

@lead /gpu up coder-fim because demo
expect "The GPU is taken" within 30s
@lead clicks "Replace"
expect "Displaces" within 30s
break smoke-fails
@admin clicks "Approve"
expect "restoring coder-chat" within 90s
expect "coder-chat is restored: @dev holds the GPU again" within 90s
mend smoke-fails
@dev /gpu status
expect "coder-chat is held by @dev"
expect "evaluation run"
expect not "coder-fim is held" within 1s
@dev /gpu down
expect "is down and the GPU is free" within 60s

@dev /gpu up coder-chat because the approvers are at lunch      # an emergency without approvers
expect "Approve" within 30s
@admin clicks "Override because …"
@admin fills "Because" with "customer demo, everybody is at lunch"
@admin submits
expect "Approval overridden in an emergency by @admin" within 30s
expect "customer demo, everybody is at lunch"
expect "all smoke tests passed" within 60s
