# Help with the names of this platform, a suggestion for a typo, a mention in a thread, and Home.
given speed 300

@dev /gpu help up
expect "/gpu up coder-chat for 2h because demo tonight"
@dev /gpu stauts
expect "Did you mean /gpu status?"
@dev opens home
expect "The GPU is free"
expect "coder-fim"

@dev /gpu up coder-chat for 1h because a look around
expect "Approve"
@dev says "@stoker status" under "Bring up coder-chat"
expect "awaiting approval"
@dev writes "help"
expect "/model add NAME"
@lead opens home
expect "Waiting for your decision"
expect "a look around"
@lead clicks "Approve"
expect "all smoke tests passed" within 60s
expect "is up, held by @dev" within 30s
@dev opens home
expect "is up, held by @dev"
@dev clicks "Extend …"
expect "For how much longer"
@dev fills "For how much longer" with "soon"
@dev submits
expect "is not a duration"
@dev fills "For how much longer" with "30m"
@dev submits
expect "Extend coder-chat" within 30s
@dev opens home
expect "Bring up …"
@dev clicks "Bring down"
expect "is down and the GPU is free" within 30s
expect "The last week" within 40s
