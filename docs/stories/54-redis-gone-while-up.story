# Redis is down while a model is up: `/gpu down` names what it stops, and the lease still ends.
given speed 300
given idle.remind_after 10m
given idle.down_after 1h
given lease.warn_before 2s

@dev /gpu up coder-chat for 1h
@lead clicks "Approve"
expect "all smoke tests passed" within 60s
redis stops
@dev /gpu status
expect "Cost so far about $" within 30s
@dev /gpu down
expect "coder-chat is down" within 60s
expect replicas coder-chat 0 within 5s
redis starts
expect "is down and the GPU is free" within 60s

@dev /gpu up coder-chat for 20s
@lead clicks "Approve"
expect "all smoke tests passed" within 60s
redis stops
expect replicas coder-chat 0 within 60s
@dev /gpu status
expect "Nothing uses the GPU" within 30s
redis starts
expect "is down and the GPU is free" within 60s

@dev /gpu up coder-chat for 1h
@lead clicks "Approve"
expect "all smoke tests passed" within 60s
redis stops
@dev clicks "Bring down"                     # the answer reports what happened to the model
expect "coder-chat is down. Redis does not answer" within 60s
expect replicas coder-chat 0 within 5s
redis starts
expect "is down and the GPU is free" within 60s
