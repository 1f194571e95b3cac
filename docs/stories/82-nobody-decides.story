# Nobody decides a request: Stoker reminds the approvers at half of the time, then notifies the admins, and finally the requester.
given approvals.expire_after 16s
given roles.approvers [U0LEAD]

@dev /gpu up coder-chat for 1h
expect notified @lead "@dev requests coder-chat for 1 h" within 5s
expect not notified @lead "Nobody has decided" within 1s
expect notified @lead "Nobody has decided yet: @dev requests coder-chat" within 40s
expect notified @admin "An admin can override it" within 40s
expect notified @dev "Bring up coder-chat has expired: Nobody decided in time" within 40s
expect not notified @dev "requests" within 1s
