# Slash commands do not work in a thread: a mention answers there for everybody, the message shortcut only for you.
given speed 120

@dev /gpu up coder-chat for 1h because a look around
expect "Awaiting approval"
@lead picks "Tell Stoker …" on "Bring up coder-chat"
expect "Tell Stoker"
expect "gpu status"
@lead fills "Command" with "gpu status"
@lead submits
expect "coder-chat requested by @dev: awaiting approval" within 30s

@admin picks "Tell Stoker …" on "Bring up coder-chat"
@admin fills "Command" with "gpu upp coder-fim"
@admin submits
expect "Did you mean" within 30s
@admin picks "Tell Stoker …" on "Bring up coder-chat"
@admin fills "Command" with "/gpu up coder-fim because from a thread"
@admin submits
expect "Bring up coder-fim" within 30s
expect "from a thread"
@dev clicks "Cancel"                         # the newest request is somebody else's
expect "Only" within 30s
