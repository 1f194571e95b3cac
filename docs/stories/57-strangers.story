# People of other organisations and guests are in the channel; Stoker serves only members of its own workspace.
given speed 300

@guest /gpu up coder-chat
expect "does not accept requests from guests" within 10s
@guest opens home
expect "does not accept requests from guests" within 10s

@dev /gpu up coder-chat for 2h because demo
expect "Approve" within 15s
@guest clicks "Approve"
expect "does not accept requests from guests" within 10s
@stranger clicks "Approve"
expect "another organisation" within 10s
@lead clicks "Approve"
expect "is up and answers" within 90s

@stranger says "@stoker down coder-chat"
expect "another organisation" within 10s
@stranger writes "down coder-chat"
expect "another organisation" within 10s
@stranger picks "Tell Stoker …" on "Bring up"
expect "another organisation" within 10s
@guest /gpu down coder-chat
expect "does not accept requests from guests" within 10s
expect replicas coder-chat 1 within 5s

@dev /gpu down coder-chat
expect replicas coder-chat 0 within 60s
