# Another team's platform: an ApplicationSet creates the Applications, each model has its own namespace, the engine has
# no key, and there is no gateway. The model was already up when Stoker was installed.
given platform model-directories
given speed 600
@dev /gpu down qwen-coder
expect "qwen-coder is down" within 30s
expect replicas qwen-coder 0
@dev /gpu up qwen-coder
expect "Application: qwen-coder"
@lead clicks "Approve"
expect "qwen-coder is up and answers" within 60s
@dev /gpu down qwen-coder
expect "qwen-coder is down" within 30s
