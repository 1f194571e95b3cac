# Nobody is there: a reminder, an announcement, and the model is brought down. A GPU that nobody uses bills all the same.
given speed 120
given idle.remind_after 4s
given idle.down_after 12s

@dev /gpu up coder-chat
@lead clicks "Approve"
expect "all smoke tests passed" within 60s
expect "has been idle" within 30s
expect "Without an answer I bring it down" within 5s
expect "is down and the GPU is free" within 60s
expect "Receipt"
