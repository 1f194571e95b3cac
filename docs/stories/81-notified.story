# Stoker notifies the approvers of a request and the requester of its result, and nobody of their own actions.
given speed 300
given roles.approvers [S0APPROVERS]

@dev /gpu up coder-chat for 2h because demo
expect notified @lead "@gpu-approvers: @dev requests coder-chat for 2 h, about $" within 20s
expect notified @admin "because demo" within 5s
@lead clicks "Deny because …"
@lead fills "Because" with "budget used up"
@lead submits
expect notified @dev "@lead has declined “Bring up coder-chat”: budget used up" within 20s
expect not notified @lead "declined" within 1s

@dev /gpu up coder-chat for 2h
expect notified @lead "@dev requests coder-chat for 2 h" within 20s
expect not notified @dev "requests" within 1s
@lead clicks "Approve"
expect notified @dev "coder-chat is ready until" within 90s
expect not notified @lead "ready" within 1s

@lead /gpu down coder-chat                      # somebody else's session: confirmed, with a reason
expect "coder-chat is held by @dev" within 10s
expect replicas coder-chat 1 within 1s
@lead fills "Because" with "the demo is cancelled"
@lead submits
expect notified @dev "@lead is bringing down your coder-chat: the demo is cancelled" within 20s
expect not notified @lead "coder-chat" within 1s
