# Stoker refuses impossible requests immediately, with the reason and the fix, and only the requester sees it.

@dev /gpu up coder-chatt
expect "Did you mean coder-chat"
@dev /gpu up coder-chat for -3h
expect "duration"
@dev /gpu up embeddings
expect "runs on CPU"
@dev /gpu down coder-chat
expect "already down"
@dev /model add Coder_Mini Qwen/Qwen2.5-Coder-3B-Instruct-AWQ
expect "is not a valid endpoint name"
expect not "Preparing" within 1s
@dev /model add coder-mini $(reboot)
expect "is not a model on Hugging Face"
expect not "Preparing" within 1s
@dev /model add coder-chat Qwen/Qwen2.5-Coder-3B-Instruct-AWQ
expect "exists"
@dev /model swap coder-nothing Qwen/Qwen2.5-Coder-3B-Instruct-AWQ
expect "Unknown model"
@dev /model swap coder-chat Qwen/Qwen2.5-Coder-3B-Instruct-AWQ context=lots
expect "context=lots cannot be read"
@dev /model add coder-mini Qwen/Qwen2.5-Coder-3B-Instruct-AWQ contxt=8192
expect "contxt= is not an option"
expect not "Preparing" within 1s
@dev /gpu lift coder-chat
expect "/gpu up"
@dev /model help
expect "/model add"

@dev /gpu up coder-chat
expect "Approve"
@dev clicks "Approve"                        # only approvers may spend money
expect "Only approvers can decide this"
@lead clicks "Deny"
expect "Denied by @lead"

@lead /gpu up coder-chat
expect "Approve"
@lead clicks "Approve"                       # and nobody approves their own request
expect "a teammate must approve it"
expect not "Approved by" within 1s
@lead clicks "Cancel"
expect "cancelled"
