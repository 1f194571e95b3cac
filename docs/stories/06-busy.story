# One GPU, two people: the second sees who holds it, queues, and gets it when the turn comes.
given speed 300

@dev /gpu up coder-chat because evaluation run
@lead clicks "Approve"
expect "all smoke tests passed" within 60s

@lead /gpu up coder-fim because demo
expect "The GPU is taken: coder-chat is held by @dev" within 30s
expect "evaluation run"
expect not "Approve" within 1s
@lead clicks "Ask the holder"
expect "@lead asks whether coder-chat can go down" within 30s
@dev clicks "Not now"
expect "@dev still needs coder-chat" within 30s
@lead clicks "Queue"
expect "In the queue, next" within 30s
expect "by about"
@dev /gpu queue
expect "1. @lead with coder-fim"
@dev opens home
expect "The queue" within 30s
expect "1. @lead with coder-fim"

@admin clicks "Approve"                      # an early approval stays valid
expect "Approved by @admin" within 30s
@dev /gpu up coder-embed                     # nobody overtakes the queue
expect "Did you mean" within 30s

@dev /gpu down coder-chat
expect "is down and the GPU is free" within 60s
expect "It is your turn" within 60s
@dev /gpu up coder-chat
expect "Others are waiting" within 30s
@dev clicks "Cancel"
@lead clicks "Take it"
expect "all smoke tests passed" within 60s

@lead /gpu extend 1h
expect "Extend coder-fim" within 30s
expect "of @lead for coder-fim was extended to" within 30s
@lead /gpu extend 7h
expect "Approve" within 30s
@lead clicks "Cancel"
@admin /gpu release because the demo is over and nobody is there
expect "Break the lease of coder-fim" within 30s
@lead clicks "Approve"
expect "breaks your lease" within 30s
expect "is down and the GPU is free" within 60s

kubectl scale coder-chat 1                   # somebody uses kubectl
@lead /gpu up coder-fim
expect "nobody holds a lease" within 30s
kubectl scale coder-chat 0
