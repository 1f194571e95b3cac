# A day in the app's Home: decide a request, bring the GPU down, and see the chart of the week.
given speed 300

@dev /gpu up coder-chat because surfaces
expect "Awaiting approval"
@lead opens home
expect "coder-chat" within 30s
@lead clicks "Approve"
expect "all smoke tests passed" within 90s
@dev opens home
expect "Bring down" within 30s
@dev clicks "Bring down"
expect "the GPU is free" within 60s
expect "GPU hours by day" within 60s
@dev /gpu report
expect "week by week" within 60s             # the title of the chart
