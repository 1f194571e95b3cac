# The platform fails in four ways; each ends with one clear message, at zero replicas, with the GPU free.
given speed 120
given gpu.boot_limit 20s

break no-stock
@dev /gpu up coder-chat
@lead clicks "Approve"
expect "failed" within 60s
expect "the GPU is free" within 30s
mend no-stock

break sync-fails
@dev /model swap coder-chat Qwen/Qwen2.5-Coder-14B-Instruct-AWQ
expect "Pull request #1" within 60s
github checks pass
expect "Approve & roll out" within 30s
@lead clicks "Approve & roll out"
expect "revert it to undo" within 60s
mend sync-fails

break smoke-fails
@dev /gpu up coder-fim
@lead clicks "Approve"
expect "Smoke test failed" within 60s
expect "the GPU is free" within 60s
mend smoke-fails

break never-ready
@dev /gpu up coder-fim
@lead clicks "Approve"
expect "the GPU is free" within 60s
mend never-ready
