# The cloud reclaims the node during a session: Stoker reports it and bills nothing without a node; a restart brings the model back.
given speed 60

@dev /gpu up coder-chat for 2h because demo
@lead clicks "Approve"
expect "coder-chat is up and answers" within 60s
node is reclaimed
expect "no longer serves requests" within 30s
expect "without a node since" within 5s
expect "Nothing is billed while it has no node" within 5s
@dev /gpu status
expect "without a node since" within 10s
@dev /model list
expect "not serving, without a node since" within 10s
@dev clicks "Restart"
expect "Restart coder-chat" within 20s
expect "coder-chat serves again" within 60s
@dev /gpu status
expect "held by @dev" within 10s
expect not "without a node" within 1s
@dev /gpu down
expect "Receipt" within 60s
expect replicas coder-chat 0 within 30s
