# A person approves every cost: a denied, cancelled or expired request starts nothing.
given approvals.expire_after 10s

@dev /gpu up coder-chat
expect "Approve"
@lead clicks "Deny"
expect "denied"
expect "Nothing was started"
expect not "syncing" within 1s

@dev /gpu up coder-chat
expect "Approve"
@dev clicks "Cancel"
expect "cancelled"

@dev /gpu up coder-chat
expect "Approve"
expect "expired" within 60s
expect "Nobody decided in time"

@dev /gpu status
expect "free"
