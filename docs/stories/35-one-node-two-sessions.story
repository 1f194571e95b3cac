# The next model comes up before the node has drained: the first receipt ends when the second begins, so no minute is billed twice.
given speed 60

@dev /gpu up coder-chat
@lead clicks "Approve"
expect "all smoke tests passed" within 60s
@dev /gpu down
expect "is down and the GPU is free" within 60s
expect "an estimate"

@dev /gpu up coder-fim because autocompletion
@lead clicks "Approve"
expect "Receipt: up" within 60s
expect "the node billed" within 60s
expect "all smoke tests passed" within 60s
expect "fill in the middle"
@dev /gpu down
expect "autocompletion" within 60s
expect "the node billed" within 60s
