# After a boot, Stoker compares the engine's measurements with the estimate, and uses them for the next estimate.
given speed 300

@dev /model fit Qwen/Qwen2.5-Coder-7B-Instruct-AWQ
expect "overhead 2.2 GiB"
expect not "observed" within 1s

@dev /gpu up coder-chat
@lead clicks "Approve"
expect "all smoke tests passed" within 60s
expect "Measured by the engine" within 30s
expect "more for the cache than estimated" within 30s
expect "The next estimate for this engine and GPU uses these measurements"

@dev /model fit Qwen/Qwen2.5-Coder-7B-Instruct-AWQ
expect "observed at 1 boot of vLLM" within 30s
