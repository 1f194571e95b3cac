# A demo cannot wait: one approved operation replaces the running model, and notifies its holder.
given speed 300

@dev /gpu up coder-chat because evaluation run
@lead clicks "Approve"
expect "all smoke tests passed" within 60s

@admin /gpu up coder-fim because demo in ten minutes
expect "The GPU is taken" within 30s
@admin clicks "Replace"
expect "Displaces coder-chat, held by @dev" within 30s
expect "it is restored if coder-fim fails"
expect notified @dev "@admin asks to replace your session of coder-chat with coder-fim because demo in ten minutes" within 10s
@dev clicks "Object"
@dev fills "Because" with "the evaluation is half done"
@dev submits
expect notified @lead "objects to" within 10s
expect "@dev objects to “Bring up coder-fim”: the evaluation is half done"
@dev clicks "Approve"                        # the current holder cannot approve: an approver decides
expect "Only approvers can decide this"
@lead clicks "Approve"
expect "all smoke tests passed" within 90s
expect not "failed" within 1s

@dev /gpu status
expect "coder-fim is held by @admin"
expect not "coder-chat is held" within 1s
@admin /gpu down
expect "is down and the GPU is free" within 60s
