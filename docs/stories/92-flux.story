# Flux deploys flat files: Stoker starts and stops models with a commit, and shows Flux's own error messages. The engine is SGLang.
given platform flat-files
given speed 600
given argocd.sync_limit 10s
@dev /gpu down qwen3
expect "qwen3 is down" within 30s
expect replicas qwen3 0
break flux-fails
@dev /gpu up mistral
expect "Kustomization: apps"
@lead clicks "Approve"
expect "the namespace is frozen" within 30s
mend flux-fails
expect "Ended at" within 20s
expect replicas mistral 0 within 10s
@dev /gpu up mistral
expect "Awaiting approval" within 10s
@lead clicks "Approve"
expect "mistral is up and answers" within 60s
expect replicas mistral 1
@dev /gpu down mistral
expect "mistral is down" within 30s
