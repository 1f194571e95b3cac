# The channel is archived right after a swap's merge: the roll-out still updates the gateway and the engine.
given speed 120

@dev /gpu up coder-chat
@lead clicks "Approve"
expect "all smoke tests passed" within 60s
@dev /model swap coder-chat Qwen/Qwen2.5-Coder-14B-Instruct-AWQ
expect "Pull request #1" within 40s
github checks pass
@lead clicks "Approve & roll out"
expect "Argo CD: the gateway" within 40s
slack archives the channel
@admin writes "help"
expect "now serves Qwen/Qwen2.5-Coder-14B-Instruct-AWQ and answers" within 120s
slack unarchives the channel
expect "Succeeded" within 40s
@dev /model list
expect "Qwen2.5-Coder-14B-Instruct-AWQ"
