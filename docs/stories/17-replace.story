# A demo cannot wait: the model that is up is replaced by another, in one approved step; its holder is told.
given speed 120

@dev /gpu up coder-chat because evaluation run
@lead clicks "Approve"
expect "all smoke tests passed" within 60s

@admin /gpu up coder-fim because demo in ten minutes
expect "The GPU is taken" within 30s
@admin clicks "Replace"
expect "Displaces coder-chat, held by @dev" within 30s
expect "it is restored if coder-fim fails"
@dev clicks "Approve"                        # not by whom it pushes aside: an approver decides
expect "Only approvers can decide this"
@lead clicks "Approve"
expect "all smoke tests passed" within 90s
expect not "failed" within 1s

@dev /gpu status
expect "coder-fim is held by @admin"
expect not "coder-chat is held" within 1s
@admin /gpu down
expect "is down and the GPU is free" within 60s
