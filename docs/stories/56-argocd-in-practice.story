# Common states of Argo CD: permanently out of sync, a hook that hangs, a sync window, manifests that it cannot render.
given speed 120
given argocd.sync_limit 25s

break argocd-outofsync
@dev /model swap coder-chat Qwen/Qwen2.5-Coder-14B-Instruct-AWQ
expect "Pull request #1" within 60s
github checks pass
expect "Approve & roll out" within 30s
@lead clicks "Approve & roll out"
expect "coder-chat is rolled out" within 60s
expect "reports OutOfSync" within 5s
mend argocd-outofsync

break argocd-hook-hangs
@dev /model swap coder-chat Qwen/Qwen2.5-Coder-7B-Instruct-AWQ
expect "Pull request #2" within 60s
github checks pass
expect "Approve & roll out" within 30s
@lead clicks "Approve & roll out"
expect "waiting for completion of hook" within 60s
expect "argocd app terminate-op litellm" within 60s
mend argocd-hook-hangs

break argocd-comparison-error
@dev /model swap coder-fim Qwen/Qwen2.5-Coder-3B
expect "Pull request #3" within 60s
github checks pass
expect "Approve & roll out" within 30s
@lead clicks "Approve & roll out"
expect "cannot compare litellm with git" within 60s
@dev /gpu up coder-chat for 1h               # the card shows a known error before anybody approves
expect "has an error now, and its sync fails until that is fixed" within 30s
@dev clicks "Cancel"
expect "Cancelled" within 30s
mend argocd-comparison-error
