# Another team's platform: an ApplicationSet makes the Applications, each model has a namespace of its own, the engine has
# no key, and there is no gateway. The model was up before Stoker came.
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
