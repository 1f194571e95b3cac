# Everybody may stop what costs money, with the button and with the command: they give a reason, and the holder is notified.
@dev /gpu up coder-chat for 2h because demo
@lead clicks "Approve"
expect "waiting for a node" within 30s
@admin clicks "Cancel"
expect "Cancel because" within 10s
@admin fills "Because" with "the budget is used up"
@admin submits
expect "Cancelled by @admin" within 30s
expect notified @dev "@admin is cancelling your bring-up of coder-chat: the budget is used up" within 10s
expect not notified @admin "coder-chat" within 1s
@dev writes "status"
expect "The GPU is free" within 30s
expect replicas coder-chat 0 within 60s

@lead /gpu up coder-chat for 2h because demo
@admin clicks "Approve"
expect "is up and answers" within 90s
@dev writes "down coder-chat"                # where no form can open, the reason is the confirmation
expect "To bring it down, give a reason" within 10s
@dev /gpu down coder-chat because nobody uses it
expect "coder-chat is held by @lead" within 10s
@dev clicks "Bring down"
expect "is down and the GPU is free" within 60s
