# Each finished card has the next step: end a session from its card, bring the model up again, and repeat what failed.
given speed 300

@dev /gpu up coder-chat for 2h because evaluation
@lead clicks "Approve"
expect "Extend …" within 60s
@dev clicks "Bring down"
expect "is down and the GPU is free" within 60s
expect "coder-chat was up" within 30s
expect "receipt" within 10s

@dev clicks "Bring up"
expect "Bring up a model" within 10s
@dev submits
expect "Awaiting approval" within 30s
break smoke-fails
@lead clicks "Approve"
expect "Smoke test failed" within 60s
mend smoke-fails
@dev clicks "Retry"
expect "Awaiting approval" within 30s
@lead clicks "Approve"
expect "all smoke tests passed" within 60s
@dev /gpu status
expect "Extend …" within 30s
