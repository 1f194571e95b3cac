# Somebody keeps an idle model until a chosen time. The number of keeps and their end are limited.
given speed 300
given idle.remind_after 5s
given idle.down_after 10m
given idle.keep 4s
given idle.keeps 2

@dev /gpu up coder-chat for 1h because long evaluation
@lead clicks "Approve"
expect "all smoke tests passed" within 60s
expect "has been idle" within 60s
@dev clicks "Keep until …"
expect "How long should" within 30s
@dev fills "Keep until" with "2036-01-01 10:00"
@dev submits
expect "cannot be kept longer than that" within 30s
@dev fills "Keep until" with "2016-01-01 10:00"
@dev submits
expect "That time has passed" within 30s
@dev clicks "Keep until …"
expect "How long should" within 30s
@dev submits
expect "is kept until" within 30s
expect "1 of 2" within 30s

expect "has been idle" within 60s            # the keep is over, and nobody used it
@dev clicks "Keep 4 s"
expect "2 of 2" within 30s
expect "has been idle" within 60s            # no keeps are left: one button remains
@dev clicks "Bring down"
expect "is down and the GPU is free" within 60s
expect "long evaluation"
