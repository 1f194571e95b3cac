# The app's Home is enough for a day: what waits is decided there, the GPU is brought down there, the week is a picture.
given speed 120

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
expect "The GPU by day" within 60s         # the picture in Home, in words
@dev /gpu report
expect "week by week" within 60s             # the title of the picture
