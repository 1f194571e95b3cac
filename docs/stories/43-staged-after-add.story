# After the roll-out of a new endpoint its weights are staged automatically, even if Hugging Face rejects requests during
# the download and the bot is killed. `/gpu up` waits for it: one download, and no pod that waits for a volume.
given speed 20
given approvals.checks_grace 1s
given idle.down_after 120s
given idle.remind_after 110s

@dev /model add coder-mini Qwen/Qwen2.5-Coder-14B-Instruct-AWQ like=coder-chat
expect "Pull request #1" within 60s
github checks pass
@lead clicks "Approve & roll out"
expect "Its weights are being staged" within 60s
expect "of 10.0 GB" within 60s
break hf-429
expect "Hugging Face answers 429" within 60s
bot is killed
@dev /gpu up coder-mini for 1h
@lead clicks "Approve"
expect "waiting for the weights" within 30s
mend hf-429
expect "are on the volume of coder-mini" within 120s
expect "all smoke tests passed" within 90s
